// A pretended workshop: titles, texts as the server would render them, checks. For development and tests only.

const sh = (code) => `<pre><code class="language-sh">${code}\n</code></pre>`;

export const STEPS = [
  { id: 'look-around', title: 'Look around', hasChecks: true, canSkip: true, html: `<h1 id="look-around">Look around</h1>
<p>It is your first evening as keeper of the lighthouse at Skerry Point. Ada Finch, who kept the light before you, left everything on this computer, and the computer has no mouse and no windows. It has a <strong>shell</strong>: you type a command, press Enter, and it answers.</p>
<h2 id="where-am-i">Where am I?</h2>
<p>The shell is always <em>in</em> some directory. Ask it which one:</p>${sh('pwd')}
<p>It answers <code>/home/learner</code>: your <strong>home directory</strong>. What is in there?</p>${sh('ls\ncat welcome.txt')}
<h2 id="walking-around">Walking around</h2>
<p><code>cd</code> (<em>change directory</em>) walks into a directory. Three names are worth learning by heart:</p>
<table><thead><tr><th>name</th><th>means</th></tr></thead><tbody><tr><td><code>..</code></td><td>the directory above this one</td></tr><tr><td><code>~</code></td><td>your home directory</td></tr><tr><td><code>/</code></td><td>the top, where all directories begin</td></tr></tbody></table>
<blockquote><p><strong>Less typing:</strong> press <kbd>Tab</kbd> after the first letters of a name, and the shell completes it.</p></blockquote>
<h2 id="your-task">Your task</h2>
<ol><li>Go to the lamp room, <code>~/lighthouse/lamp-room</code>.</li><li>Find the note that Ada hid under the mat, and read it.</li><li>Write the colour of the lamp into the file <code>answer.txt</code> in your home directory.</li></ol>
<p>If the colour were green, you would type:</p>${sh('echo green &gt; ~/answer.txt')}
<pre><code class="language-console">$ cd ~/lighthouse/lamp-room
$ ls -a
.  ..  .under-the-mat
</code></pre>
<pre><code class="language-yaml">keeper:
  name: Ada Finch   # until spring
  lamps: 2
</code></pre>
<details><summary>Hint: I cannot find the note</summary><p>Type <code>ls -a</code> in the lamp room. One name begins with a dot.</p>${sh('ls -a ~/lighthouse/lamp-room')}</details>
<p><img src="/w/ada/api/v1/assets/lamp.svg" alt="The lamp at night"> <a href="#where-am-i">Back to the beginning</a> · <a href="https://www.gnu.org/software/bash/manual/">The manual of bash</a></p>
<script>document.title='hacked'</script><img src="x" onerror="document.title='hacked'"><p id="pwned" style="position:fixed;inset:0" onclick="alert(1)">Plain text</p>` },
  { id: 'read-the-logbook', title: 'Read the logbook', hasChecks: true, canSkip: false, html: `<h1>Read the logbook</h1><p>Every evening the keeper writes down which ships passed. Read how the last week went.</p>${sh('ls lighthouse')}` },
  { id: 'tidy-up', title: 'Tidy up', hasChecks: true, canSkip: true, html: '<h1>Tidy up</h1><p>The store room is a mess.</p>' },
  { id: 'build-a-pipeline', title: 'Build a pipeline', hasChecks: true, canSkip: true, html: '<h1>Build a pipeline</h1><p>The sign <code>|</code> is the pipe.</p>' },
  { id: 'write-a-script', title: 'Write a script', hasChecks: false, canSkip: true, html: '<h1>Write a script</h1><p>Put your commands into a file.</p>' },
  { id: 'make-it-yours', title: 'Make the shell yours', hasChecks: false, canSkip: true, html: '<h1>Make the shell yours</h1><p>Colours, prompts and aliases.</p>' },
];

/** What the checks of a step say of the files. */
export function results(step, files) {
  const answer = files.entries.get('/home/learner/answer.txt');
  const right = typeof answer === 'string' && answer.trim() === 'amber';
  const row = (property, outcome, message, more = {}) => ({
    id: `file:/home/learner/answer.txt:${property}`, resource: 'file', resourceId: '/home/learner/answer.txt', property, title: null,
    outcome, message, hint: null, durationMs: 1, ...more,
  });
  if (step.id !== 'look-around') return [row('exists', 'passed', 'There is nothing left to do here')];
  return [
    row('home', 'passed', 'You are at home: the welcome letter is in its place'),
    row('exists', answer === undefined ? 'failed' : 'passed', answer === undefined ? 'There is no file answer.txt in your home directory yet' : 'The file answer.txt is there',
      answer === undefined ? { hint: 'echo prints what you give it, and > sends that into a file.', expected: 'true', found: 'false' } : {}),
    row('contents', right ? 'passed' : answer === undefined ? 'skipped' : 'failed', right ? 'The colour of the lamp is right' : 'The file answer.txt does not hold the colour of the lamp',
      right ? {} : { title: 'The colour', hint: 'Ada’s note in the lamp room names it. Small letters.', expected: '["/^amber$/"]', found: answer ?? null }),
  ];
}
