// Takes pictures of the pages in the states that matter, against the pretended server.
// usage: node e2e/shots.mjs [DIRECTORY]

import { mkdirSync } from 'node:fs';
import { KEY, Mock, TOKEN } from '../mock/server.mjs';
import { launch } from './browser.mjs';

const directory = process.argv[2] ?? 'shots';
mkdirSync(directory, { recursive: true });

async function shots(name, options, run) {
  const mock = new Mock({ switchMs: 4000 });
  const address = await mock.listen();
  const { page, close } = await launch(options);
  page.on('console', (message) => { if (message.type() === 'error') console.log(name, 'console:', message.text()); });
  page.on('pageerror', (error) => console.log(name, 'error:', error.message));
  const shot = (what) => page.screenshot({ path: `${directory}/${name}-${what}.png` });
  try {
    await run({ page, mock, address, shot });
  } catch (cause) {
    await shot('broken');
    console.log(name, cause.message);
    process.exitCode = 1;
  } finally {
    await close();
    mock.close();
  }
}

async function workspace({ page, address }) {
  await page.goto(`${address}/w/ada/#token=${TOKEN}`);
  await page.getByRole('heading', { name: 'Look around' }).waitFor();
  await page.locator('.xterm-rows').getByText('learner@skerry').waitFor();
}

for (const scheme of ['light', 'dark']) {
  await shots(scheme, { colorScheme: scheme }, async (it) => {
    const { page, mock, shot } = it;
    await page.goto(`${it.address}/w/ada/`);
    await shot('login');
    await workspace(it);
    await page.locator('.code .run').nth(0).click();
    await page.locator('.code .run').nth(1).click();
    await page.locator('.xterm-rows').getByText('Ada Finch').waitFor();
    await shot('workspace');
    await page.getByRole('button', { name: 'Check' }).click();
    await page.getByText('1 of 3 checks passed').first().waitFor();
    await page.getByRole('button', { name: 'Show hint' }).first().click();
    await page.getByText('Details').first().click();
    await shot('failing');
    await page.getByRole('button', { name: 'Next' }).click();
    await page.getByText('This step is not completed yet.').first().waitFor();
    await shot('refused');
    await page.keyboard.press('Control+Alt+t');
    await page.keyboard.type('echo amber > ~/answer.txt\n');
    await page.keyboard.press('Control+Alt+c');
    await page.getByText('All checks passed').first().waitFor();
    await shot('passed');
    mock.warning = true;
    mock.expires = Date.now() + 4 * 60_000;
    mock.event('state', mock.state());
    await page.getByRole('button', { name: 'Next' }).click();
    await page.getByText('Moving to').first().waitFor();
    await page.waitForTimeout(1500);
    await shot('switching');
    await page.getByRole('heading', { name: 'Read the logbook' }).waitFor();
    await page.locator('.banner').waitFor({ state: 'detached' });
    await page.locator('button.current').click();
    await shot('steps');
    await page.keyboard.press('Escape');
    await page.getByRole('tab', { name: 'Files' }).click();
    await page.getByText('welcome.txt').waitFor();
    await shot('files');
    await page.getByRole('button', { name: 'lighthouse', exact: true }).click();
    await page.getByRole('button', { name: 'keeper.yaml', exact: true }).click();
    await page.locator('.cm-content').waitFor();
    await page.waitForTimeout(200);
    await shot('editor');
    await page.getByRole('tab', { name: 'Notes' }).click();
    await shot('notes');
    await page.getByRole('button', { name: /Help/ }).click();
    await shot('help');
    await page.keyboard.press('Escape');
    await page.getByRole('tab', { name: 'Terminal' }).click();
    mock.setPhase('Suspended', 'nobody used it for 30 minutes');
    await page.getByText('This workspace is suspended').first().waitFor();
    await shot('suspended');
    mock.setPhase('Failed', 'the image of step 2 could not be started: exec format error');
    await page.getByText('The workspace has failed').first().waitFor();
    await shot('failed');
  });
  await shots(`home-${scheme}`, { colorScheme: scheme }, async ({ page, address, mock, shot }) => {
    mock.status[0].status = 'completed';
    mock.at = 1;
    mock.extra = [
      { ...mock.instance(), uid: 'b', name: 'bruno', reference: 'bruno', phase: 'Suspended', suspended: true, step: 'tidy-up', progress: { completed: 2, total: 6 }, lastActivityAt: new Date(Date.now() - 9e6).toISOString() },
      { ...mock.instance(), uid: 'c', name: 'carla', reference: 'carla', template: 'users', phase: 'Failed', message: 'the image of step 2 could not be started: exec format error', progress: { completed: 1, total: 6 }, lastActivityAt: null, expiresAt: null },
    ];
    await page.goto(`${address}/#key=${KEY}`);
    await page.getByText('Go on with').waitFor();
    await shot('page');
  });
}
await shots('phone', { colorScheme: 'light', viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true }, async (it) => {
  const { page, shot } = it;
  await page.goto(`${it.address}/w/ada/#token=${TOKEN}`);
  await page.getByRole('heading', { name: 'Look around' }).waitFor();
  await shot('tutorial');
  await page.getByRole('button', { name: 'Terminal', exact: true }).click();
  await page.locator('.xterm-rows').getByText('learner@skerry').waitFor();
  await shot('terminal');
  await page.getByRole('button', { name: 'Checks', exact: true }).click();
  await shot('checks-before');
  await page.getByRole('button', { name: 'Check', exact: true }).click();
  await page.getByText('1 of 3 checks passed').first().waitFor();
  await shot('checks');
  await page.getByRole('button', { name: 'More' }).click();
  await shot('more');
  await page.goto(`${it.address}/#key=${KEY}`);
  await page.getByText('Go on with').waitFor();
  await shot('home');
});
