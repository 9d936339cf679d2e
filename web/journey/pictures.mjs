// The pictures of README.md and docs/, taken of the real product.
//
// usage: node journey/pictures.mjs ADDRESS DIRECTORY
// ADDRESS is what `workshop up examples/workshops` prints. Exit codes: 0 done, 1 failed, 2 usage, 3 no browser.
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { openBrowser } from './browser.mjs';

const [address, directory] = process.argv.slice(2);
if (!address || !directory) {
  console.error('usage: node journey/pictures.mjs ADDRESS DIRECTORY');
  process.exit(2);
}
mkdirSync(directory, { recursive: true });
const { page, close } = await openBrowser(90_000);
const take = (name) => page.screenshot({ path: path.join(directory, `${name}.png`) });

try {
  await page.setViewportSize({ width: 1280, height: 800 });
  await page.goto(address);
  await page.getByRole('heading', { name: 'Start a workshop' }).waitFor();
  await take('workshops');
  await page.getByRole('button', { name: /^Start .*[Ss]hell/ }).first().click();
  await page.waitForURL(/\/w\/[^/]+\/$/);
  const rows = (text) => page.waitForFunction((wanted) => document.querySelector('.xterm-rows')?.textContent?.includes(wanted), text);
  await rows('$');
  for (const [line, answer] of [['pwd', '/home/learner'], ['cat welcome.txt', 'keeper'], ['ls -a lighthouse', 'tools']]) {
    await page.locator('.xterm-helper-textarea').focus();
    await page.keyboard.insertText(line);
    await page.keyboard.press('Enter');
    await rows(answer);
  }
  const checks = page.getByRole('region', { name: 'Checks' });
  await checks.getByRole('button', { name: /^Check/ }).click();
  await checks.getByRole('button', { name: 'Show hint' }).first().click();
  await take('workspace');
  await page.emulateMedia({ colorScheme: 'dark', reducedMotion: 'reduce' });
  await take('workspace-dark');
  await page.setViewportSize({ width: 390, height: 844 });
  await take('workspace-phone');
} catch (error) {
  console.error(error.stack ?? String(error));
  process.exitCode = 1;
} finally {
  await close();
}
