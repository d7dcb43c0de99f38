// Opens a page that makes calls of gRPC-Web, and prints how they end.
// Arguments: the browser (chrome or firefox), its program, the page's URL.
import puppeteer from "puppeteer-core";

const [browserName, executablePath, url] = process.argv.slice(2);
const chrome = browserName === "chrome";
const browser = await puppeteer.launch({
  browser: browserName,
  executablePath,
  headless: chrome ? "shell" : true,
  args: chrome ? ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"] : [],
});
const page = await browser.newPage();
await page.goto(url);
console.log(await page.evaluate(() => window.ended));
await browser.close();
