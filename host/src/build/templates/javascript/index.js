export const greetings = {
  greet(who) {
    return `Hello, ${who}!`;
  },
};
