// The pages in a real browser against the pretended server: what a learner and an owner do, and what must not happen.
// usage: node --test e2e/      (needs dist, and Chromium at /usr/bin/chromium or WORKSHOP_CHROMIUM)

import assert from 'node:assert/strict';
import { after, before, beforeEach, afterEach, describe, it } from 'node:test';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { KEY, Mock, TOKEN } from '../mock/server.mjs';
import { launch } from './browser.mjs';

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
let browser, context, page, mock, address, errors;

before(async () => { browser = await launch(); });
after(async () => browser.close());
beforeEach(async () => {
  mock = new Mock({ switchMs: 1200 });
  address = await mock.listen();
  context = await browser.context.browser()?.newContext() ?? browser.context;
  page = await context.newPage();
  page.setDefaultTimeout(15_000);
  errors = [];
  page.on('pageerror', (error) => errors.push(error.message));
});
afterEach(async () => {
  await page.close();
  await context.clearCookies();
  mock.close();
  assert.deepEqual(errors, []);
});

const terminal = () => page.locator('.xterm-rows');
const button = (name) => page.getByRole('button', { name, exact: true });
async function enter() {
  await page.goto(`${address}/w/ada/#token=${TOKEN}`);
  await page.getByRole('heading', { name: 'Look around' }).waitFor();
  await terminal().getByText('learner@skerry').first().waitFor();
}
async function type(text) {
  await page.keyboard.press('Control+Alt+t');
  await page.keyboard.type(text);
}
async function audit(where) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] }));
  const found = violations.map(({ id, nodes }) => `${where}: ${id}: ${nodes.map((node) => `${node.target} ${node.any[0]?.message ?? ''}`).join(' | ')}`);
  assert.deepEqual(found, []);
}

describe('the way in', () => {
  it('takes the token out of the address and asks the server for a cookie', async () => {
    await enter();
    assert.equal(page.url(), `${address}/w/ada/`);
    assert.ok(!mock.requests.some((request) => request.includes('token')));
    assert.equal(await page.evaluate(() => document.cookie), '');
  });
  it('says what to do without a token, and when it is not valid', async () => {
    await page.goto(`${address}/w/ada/`);
    await page.getByText('To come in, open the address').waitFor();
    await page.getByLabel('Address or code').fill(`${address}/w/ada/#token=a.b.c`);
    await button('Open').click();
    await page.getByText('This address is not valid').waitFor();
    await page.getByLabel('Address or code').fill(TOKEN);
    await button('Open').click();
    await page.getByRole('heading', { name: 'Look around' }).waitFor();
  });
});

describe('a step', () => {
  it('is done as a learner does it: read, run, fail, mend, pass, go on', async () => {
    await enter();
    await page.locator('.code', { hasText: 'cat welcome.txt' }).getByRole('button', { name: 'Run' }).click();
    await terminal().getByText('The light is yours now').waitFor();
    await button('Next').click();
    await page.getByText('This step is not completed yet.').first().waitFor();
    await page.getByText('There is no file answer.txt').first().waitFor();
    assert.equal(await page.getByText('echo prints what you give it, and >').count(), 0);
    await button('Show hint').first().click();
    await page.getByText('echo prints what you give it, and >').waitFor();
    await type('echo amber > ~/answer.txt\n');
    await page.keyboard.press('Control+Alt+c');
    await page.getByText('All checks passed').first().waitFor();
    await button('Next').click();
    await page.getByText('Moving to “Read the logbook”').waitFor();
    await page.getByRole('heading', { name: 'Read the logbook' }).waitFor();
    await page.locator('.banner').waitFor({ state: 'detached' });
    await page.waitForFunction(() => !document.querySelector('.xterm-rows')?.textContent?.includes('amber'));
    await type('pwd\n');
    await terminal().getByText('/home/learner').first().waitFor();
  });
  it('can be reset, which asks first and keeps the page', async () => {
    await enter();
    await type('echo x > gone.txt\n');
    await button('Reset step').click();
    await button('Reset the step').click();
    await page.getByText('Resetting “Look around”').waitFor();
    await page.locator('.banner').waitFor({ state: 'detached' });
    assert.equal(mock.files.entries.has('/home/learner/gone.txt'), false);
  });
  it('is switched from elsewhere without a reload', async () => {
    await enter();
    await page.evaluate(() => (globalThis.stays = true));
    mock.switchTo(2);
    await page.getByText('Moving to “Tidy up”').waitFor();
    await page.getByRole('heading', { name: 'Tidy up' }).waitFor();
    assert.equal(await page.evaluate(() => globalThis.stays), true);
  });
  it('that is locked says why', async () => {
    await enter();
    await page.locator('button.current').click();
    await page.getByText('Complete “Look around” first').waitFor();
  });
  it('changes its text while the terminal and what was unfolded elsewhere stay', async () => {
    await enter();
    await type('pwd\n');
    mock.event('state', mock.state());
    await page.locator('summary', { hasText: 'I cannot find the note' }).click();
    mock.event('state', mock.state());
    mock.event('content', { step: 'look-around' });
    await page.waitForTimeout(200);
    assert.equal(await page.locator('.article details[open]').count(), 1);
  });
});

describe('a hostile text', () => {
  it('cannot script or cover the page', async () => {
    await enter();
    assert.notEqual(await page.title(), 'hacked');
    assert.equal(await page.locator('.article script, .article [onerror], .article [onclick], .article [style]').count(), 0);
  });
});

describe('the connection', () => {
  it('of the terminal may be cut again and again', async () => {
    await enter();
    await type('seq 60000\n');
    for (let at = 0; at < 20; at += 1) {
      mock.cut();
      await page.waitForTimeout(60);
    }
    await terminal().getByText('60000', { exact: true }).waitFor();
    await type('pwd\n');
    await terminal().getByText('/home/learner').first().waitFor();
  });
  it('does not wake a suspended workspace until Resume is pressed', async () => {
    await enter();
    mock.setPhase('Suspended', 'nobody used it for 30 minutes');
    await page.getByText('This workspace is suspended').waitFor();
    const already = mock.requests.length;
    await page.waitForTimeout(2500);
    assert.deepEqual(mock.requests.slice(already).filter((request) => !request.includes('gateway/v1/state')), []);
    assert.equal(mock.phase, 'Suspended');
    await button('Resume').click();
    await page.locator('.banner').waitFor({ state: 'detached' });
    await page.getByText('Connected').waitFor();
  });
  it('tells why a workspace has failed, and returns by itself', async () => {
    await enter();
    mock.setPhase('Failed', 'exec format error');
    await page.getByText('Exec format error.').first().waitFor();
    mock.setPhase('Running');
    await page.locator('.banner').waitFor({ state: 'detached' });
  });
  it('works without a gateway, where only texts are shown', async () => {
    mock.gateway = false;
    mock.files.write('/home/learner/answer.txt', 'amber\n');
    await enter();
    await button('Next').click();
    await page.getByText('You are reading another step').waitFor();
    mock.down();
    await page.getByText('Reconnecting').first().waitFor();
    mock.setPhase('Running');
    await page.getByText('Connected').waitFor();
  });
});

describe('the terminal', () => {
  it('says that the shell has ended, and starts another', async () => {
    await enter();
    await type('exit 3\n');
    await page.getByText('The shell has ended with exit status 3.').waitFor();
    await button('Restart').click();
    await page.getByText('The shell has ended with').waitFor({ state: 'detached' });
    await type('pwd\n');
    await terminal().getByText('/home/learner').first().waitFor();
  });
  it('is left by pressing Escape twice', async () => {
    await enter();
    await type('a');
    await page.keyboard.press('Escape');
    await page.keyboard.press('Escape');
    assert.equal(await page.evaluate(() => document.activeElement?.id), 'tab-terminal');
  });
});

describe('files, editor and notes', () => {
  it('never overwrite what changed in the meantime without a question', async () => {
    await enter();
    await page.getByRole('tab', { name: 'Files' }).click();
    await button('welcome.txt').click();
    await page.locator('.cm-content').click();
    await page.keyboard.press('Control+Home');
    await page.keyboard.type('Dear ');
    await page.keyboard.press('Control+s');
    await button('Save').and(page.locator(':disabled')).waitFor();
    assert.ok(mock.files.entries.get('/home/learner/welcome.txt').startsWith('Dear Good'));
    mock.files.write('/home/learner/welcome.txt', 'other\n');
    await page.keyboard.type('me');
    await button('Save').click();
    await page.getByText('This file has changed').waitFor();
    assert.equal(mock.files.entries.get('/home/learner/welcome.txt'), 'other\n');
    await button('Load the changed file').click();
    await page.locator('.cm-line', { hasText: 'other' }).waitFor();
  });
  it('upload, and ask before they replace', async () => {
    await enter();
    await page.getByRole('tab', { name: 'Files' }).click();
    const file = { name: 'up.txt', mimeType: 'text/plain', buffer: Buffer.from('one') };
    await page.locator('input[type=file]').setInputFiles(file);
    await button('up.txt').waitFor();
    await page.locator('input[type=file]').setInputFiles({ ...file, buffer: Buffer.from('two') });
    await button('Replace').click();
    await page.waitForFunction(() => !document.querySelector('dialog[open]'));
    await button('Delete up.txt').click();
    await button('Delete').click();
    await button('up.txt').waitFor({ state: 'detached' });
    assert.equal(mock.files.entries.has('/home/learner/up.txt'), false);
  });
  it('keep notes by themselves', async () => {
    await enter();
    await page.getByRole('tab', { name: 'Notes' }).click();
    await page.getByLabel('Notes', { exact: true }).and(page.locator('textarea')).fill('amber!');
    await page.getByText('Saved', { exact: true }).waitFor();
    assert.equal(mock.notes.notes, 'amber!');
  });
});

describe('the owner\'s page', () => {
  it('suspends, resumes, deletes and starts', async () => {
    await page.goto(`${address}/#key=${KEY}`);
    await button('Suspend ada').click();
    await page.getByText('Suspended', { exact: true }).waitFor();
    await button('Resume ada').click();
    await page.getByText('Running', { exact: true }).waitFor();
    await button('Delete ada').click();
    await button('Delete').click();
    await page.getByText('Start a workshop').waitFor();
    assert.equal(page.url(), `${address}/`);
    await page.getByRole('button', { name: 'Start First steps in the shell' }).click();
    await page.waitForURL(`${address}/w/ada/`);
  });
});

describe('everybody', () => {
  for (const colorScheme of ['light', 'dark']) {
    it(`can read the pages: WCAG 2.1 AA, ${colorScheme}`, async () => {
      await page.emulateMedia({ colorScheme });
      await page.goto(`${address}/w/ada/`);
      await page.getByText('To come in').waitFor();
      await audit('login');
      await enter();
      await button('Next').click();
      await page.getByText('This step is not completed yet.').first().waitFor();
      await button('Show hint').first().click();
      await audit('workspace');
      await page.getByRole('tab', { name: 'Files' }).click();
      await button('welcome.txt').waitFor();
      await audit('files');
      await button('welcome.txt').click();
      await page.locator('.cm-content').waitFor();
      await audit('editor');
      await page.locator('button.current').click();
      await audit('steps');
      await page.keyboard.press('?');
      await audit('help');
      await page.goto(`${address}/#key=${KEY}`);
      await page.getByText('Go on with').waitFor();
      await audit('home');
    });
  }
  it('gets a page that fits a phone', async () => {
    await page.setViewportSize({ width: 390, height: 844 });
    await page.goto(`${address}/w/ada/#token=${TOKEN}`);
    await page.getByRole('heading', { name: 'Look around' }).waitFor();
    for (const view of ['Tutorial', 'Terminal', 'Checks', 'More']) {
      await page.locator('.phone-bar').getByRole('button', { name: view }).click();
      const wide = await page.evaluate(() => [...document.querySelectorAll('body *')].filter((each) => each.checkVisibility?.() && each.getBoundingClientRect().right > innerWidth + 1 && !each.closest('.scroll, .keys, .xterm, .code, .visually-hidden')).map((each) => each.className));
      assert.deepEqual(wide, [], view);
    }
    await page.locator('.phone-bar').getByRole('button', { name: 'Terminal' }).click();
    await terminal().getByText('learner@skerry').first().waitFor();
    await page.getByRole('button', { name: 'Tilde' }).click();
    await terminal().getByText('$ ~').waitFor();
  });
  it('prints the text and nothing else', async () => {
    await enter();
    await page.emulateMedia({ media: 'print' });
    assert.equal(await page.locator('.article').isVisible(), true);
    for (const part of ['header', '.checks', '#tools', '.head', '.code figcaption button']) assert.equal(await page.locator(part).first().isVisible(), false, part);
  });
  it('moves the split by keyboard, and finds it again', async () => {
    await enter();
    await page.getByRole('separator').focus();
    await page.keyboard.press('Shift+ArrowRight');
    assert.equal(await page.getByRole('separator').getAttribute('aria-valuenow'), '52');
    await page.reload();
    await page.getByRole('separator').waitFor();
    assert.equal(await page.getByRole('separator').getAttribute('aria-valuenow'), '52');
  });
});
