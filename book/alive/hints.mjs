// A line of help for what a reader may type; no text is refused without one.

export const LONGEST = 200; // characters: a caption, not a page

/** A line about a text that is not translated, or null if it can be. */
export function refusal(text) {
  if (!text.trim()) return "Type a German sentence that could stand below a picture.";
  if (text.length > LONGEST) {
    const count = text.length.toLocaleString("en");
    return `These are ${count} characters. The model reads captions: up to ${LONGEST}, please.`;
  }
  if (/<\/?[a-z!][^<]*>/i.test(text)) return "This has HTML tags in it: type plain text, please.";
  if (!/\p{Script=Latin}/u.test(text)) return "The model reads German: here is no Latin letter.";
  return null;
}

/** A line about what the model will not understand in a text, or null. */
export function warning(text) {
  const strange = [...new Set(text.match(/[^\p{Script=Latin}\p{M}\p{N}\p{P}\p{Z}\p{Cf}\s]/gu))];
  if (strange.length) return `The model has not seen ${strange.slice(0, 3).join(" ")} before.`;
  const letters = text.match(/\p{L}/gu);
  if (letters.length > 3 && text === text.toUpperCase()) {
    return "The model has not seen text in capitals: expect little.";
  }
  return null;
}
