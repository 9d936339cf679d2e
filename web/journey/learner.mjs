// A learner's journey through the first example, in a real browser and on the real product.
//
// usage: node journey/learner.mjs ADDRESS [DIRECTORY]
// ADDRESS is what `workshop up` prints, with the key in its fragment; pictures go into DIRECTORY.
// Exit codes: 0 the end was reached, 1 something was not as it should be, 2 usage, 3 there is no browser.
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { openBrowser } from './browser.mjs';

const [address, directory] = process.argv.slice(2);
if (!address) {
  console.error('usage: node journey/learner.mjs ADDRESS [DIRECTORY]');
  process.exit(2);
}
const PATIENCE = 90_000;
if (directory) mkdirSync(directory, { recursive: true });

// What a learner types to solve each step; `solved` is a text that the terminal shows afterwards.
const steps = [
  { title: 'Look around', lines: ['cat lighthouse/lamp-room/.mat/* 2>/dev/null; echo amber > ~/answer.txt'] },
  {
    title: 'Tidy the storeroom',
    lines: [
      'cd ~/lighthouse/storeroom && mkdir charts letters && mv chart-*.txt charts && mv letter-*.txt letters && rm *.junk',
      'cp charts/chart-north.txt ../lamp-room',
    ],
  },
  { title: 'Read the logbook', lines: ["cd ~/lighthouse && mkdir reports && grep -h ';fog;' logbook/*.txt > reports/fog.txt"] },
  {
    title: 'Build a pipeline',
    lines: ["cd ~/lighthouse && cat logbook/*.txt | cut -d ';' -f 4 | sort | uniq -c | sort -rn | head -n 3 > reports/ships.txt"],
  },
  {
    title: 'Make the shell yours',
    lines: [
      `printf 'export KEEPER="Robin"\\nexport PATH="$LIGHTHOUSE/tools:$PATH"\\n' > ~/.profile`,
      'cd ~ && . ~/.profile && foghorn',
    ],
  },
  {
    title: 'Write your first script',
    lines: [
      `cd ~ && printf '#!/bin/sh\\necho "Keeper: $KEEPER"\\necho "Entries: $(cat ~/lighthouse/logbook/*.txt | wc -l)"\\necho "Fog: $(wc -l < ~/lighthouse/reports/fog.txt)"\\n' > evening-report`,
      'chmod +x evening-report && ./evening-report > lighthouse/reports/evening.txt',
    ],
  },
];

const { page, close } = await openBrowser(PATIENCE);
const complaints = [];
page.on('pageerror', (error) => complaints.push(`the page broke: ${error.message}`));
page.on('console', (message) => {
  // A refused Next is a 409 and a switched machine answers nothing for a moment: both belong to the journey.
  if (message.type() === 'error' && !/Failed to load resource|WebSocket connection/.test(message.text())) {
    complaints.push(`the console says: ${message.text()}`);
  }
});
page.on('request', (request) => {
  if (/[?&](token|key)=/.test(request.url())) complaints.push(`a secret is in an address: ${request.url().split('?')[0]}`);
});

async function picture(name) {
  if (directory) await page.screenshot({ path: path.join(directory, `${name}.png`) });
}

function say(text) {
  console.log(text);
}

/** The terminal's text as a person reads it. */
async function screen() {
  return page.evaluate(() => document.querySelector('.xterm-rows')?.textContent ?? '');
}

async function type(line) {
  await page.locator('.xterm-helper-textarea').focus();
  await page.keyboard.insertText(line);
  await page.keyboard.press('Enter');
}

/** Types until the shell answers: right after a switch the prompt may not be there yet. */
async function answered(line, marker) {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    await type(`${line}; echo ${marker.slice(0, 4)}""${marker.slice(4)}`);
    try {
      await page.waitForFunction((text) => document.querySelector('.xterm-rows')?.textContent?.includes(text), marker, { timeout: 8_000 });
      return;
    } catch (error) {
      if (Date.now() > deadline) throw new Error(`the terminal never showed ${marker}; it shows: ${await screen()}`, { cause: error });
    }
  }
}

const checks = page.getByRole('region', { name: 'Checks' });
const expectTitle = (title) => page.getByRole('button', { name: new RegExp(`^Steps\\. Shown: .*${title}`) }).waitFor();

try {
  await page.goto(address);
  await page.getByRole('heading', { name: 'Start a workshop' }).waitFor();
  if (page.url().includes('#')) throw new Error('the key is still in the address bar');
  await picture('home');
  say('the owner is in');
  await page.getByRole('button', { name: /^Start .*[Ss]hell/ }).first().click();
  await page.waitForURL(/\/w\/[^/]+\/$/);

  for (const [index, step] of steps.entries()) {
    await expectTitle(step.title);
    if (index === 0) {
      await answered('true', 'ready-to-work');
      await checks.getByRole('button', { name: /^Check/ }).click();
      await checks.getByText(/failed/).first().waitFor();
      await picture('failed-check');
      await checks.getByRole('button', { name: /^Next/ }).click();
      await page.getByRole('alert').first().waitFor();
      say('a failed check holds the learner, and says what is missing');
    }
    for (const [at, line] of step.lines.entries()) await answered(line, `done-${index}-${at}-line`);
    await checks.getByRole('button', { name: /^Check/ }).click();
    await checks.getByText(/passed/).first().waitFor();
    await page.waitForFunction(() => !/\d+ failed/.test(document.querySelector('.checks')?.textContent ?? ''));
    if (index === 1) {
      await picture('light');
      await page.emulateMedia({ colorScheme: 'dark' });
      await picture('dark');
      await page.setViewportSize({ width: 390, height: 844 });
      await picture('phone');
      await page.emulateMedia({ colorScheme: 'light' });
      await page.setViewportSize({ width: 1440, height: 900 });
    }
    say(`passed: ${step.title}`);
    if (index + 1 < steps.length) {
      const began = Date.now();
      await checks.getByRole('button', { name: /^Next/ }).click();
      await expectTitle(steps[index + 1].title);
      await answered('true', `step-${index + 1}-prompt`);
      say(`next step and its prompt after ${Date.now() - began} ms`);
    }
  }
  await page.getByRole('button', { name: /^Finish|^Next/ }).click({ timeout: 2_000 }).catch(() => {});
  await page.getByText('You have finished this workshop').waitFor();
  await picture('finished');
  await page.reload();
  await page.getByText('You have finished this workshop').waitFor();
  say('the workshop is finished, and still is after a reload');
  if (complaints.length) throw new Error(complaints.join('\n'));
} catch (error) {
  await picture('broken').catch(() => {});
  console.error(error.stack ?? String(error));
  if (complaints.length) console.error(complaints.join('\n'));
  console.error(`at ${page.url()}`);
  process.exitCode = 1;
} finally {
  await close();
}
