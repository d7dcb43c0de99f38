export const greetings = {
  greet(who: string): string {
    return `Hello, ${who}!`;
  },
};
