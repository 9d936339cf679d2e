// A pretended shell with a pretended file system, just enough to see the terminal, files and checks work together.
// For development and tests of the pages only.

export class Files {
  constructor() {
    this.entries = new Map([
      ['/home/learner', null], ['/home/learner/lighthouse', null], ['/home/learner/lighthouse/lamp-room', null],
      ['/home/learner/welcome.txt', 'Good evening, keeper.\nThe light is yours now. Look around!\n\nAda Finch\n'],
      ['/home/learner/.profile', '# Read at login\nexport PATH="$HOME/bin:$PATH"\nalias ll="ls -l"\n'],
      ['/home/learner/lighthouse/lamp-room/.under-the-mat', 'The lamp burns amber. Do not tell the gulls.\n'],
      ['/home/learner/lighthouse/keeper.yaml', 'keeper:\n  name: Ada Finch   # until spring\n  lamps:\n    - colour: amber\n      watts: 400\n    - colour: white\n      watts: 120\n  on-duty: true\n'],
      ['/home/learner/lighthouse/count.sh', '#!/bin/bash\n# Counts the ships of one evening.\nset -eu\nfor log in logbook/*.txt; do\n  printf "%s: %d\\n" "$log" "$(wc -l <"$log")"\ndone\n'],
    ]);
    this.changed = new Map();
  }
  list(path) {
    const names = [];
    for (const key of this.entries.keys()) {
      if (key.startsWith(path === '/' ? '/' : `${path}/`) && key !== path) names.push(key.slice(path.length + (path === '/' ? 0 : 1)).split('/')[0]);
    }
    return [...new Set(names)].sort();
  }
  etag(path) { return `"${path.length}-${this.changed.get(path) ?? 0}"`; }
  write(path, text) {
    this.entries.set(path, text);
    this.changed.set(path, (this.changed.get(path) ?? 0) + 1);
  }
}

export class Shell {
  constructor(files, emit, host, ended) {
    Object.assign(this, { files, emit, host, ended, cwd: '/home/learner', line: '', pasting: false, pasted: '' });
    emit(`\x1b]0;learner@${host}: ~\x07`);
    this.prompt();
  }
  prompt() {
    const where = this.cwd.replace('/home/learner', '~');
    this.emit(`\x1b[?2004h\x1b[32mlearner@${this.host}\x1b[0m:\x1b[34m${where}\x1b[0m$ `);
  }
  input(text) {
    for (let rest = text; rest;) {
      if (rest.startsWith('\x1b[200~')) { this.pasting = true; rest = rest.slice(6); continue; }
      if (rest.startsWith('\x1b[201~')) { this.pasting = false; rest = rest.slice(6); continue; }
      const key = rest[0];
      rest = rest.slice(1);
      if (key === '\r' && this.pasting) { this.line += '\n'; this.emit('\r\n'); }
      else if (key === '\r') { this.emit('\x1b[?2004l\r\n'); this.run(); }
      else if (key === '\x7f') { if (this.line) { this.line = this.line.slice(0, -1); this.emit('\b \b'); } }
      else if (key === '\x03') { this.line = ''; this.emit('^C\r\n'); this.prompt(); }
      else if (key === '\x04' && !this.line) { this.emit('exit\r\n'); this.ended(0); return; }
      else if (key >= ' ') { this.line += key; this.emit(key); }
    }
  }
  resolve(path) {
    const full = path.startsWith('~') ? path.replace('~', '/home/learner') : path.startsWith('/') ? path : `${this.cwd}/${path}`;
    const parts = [];
    for (const part of full.split('/')) {
      if (part === '..') parts.pop();
      else if (part && part !== '.') parts.push(part);
    }
    return `/${parts.join('/')}`;
  }
  run() {
    const lines = this.line.split('\n');
    this.line = '';
    for (const line of lines) {
      const [, command, target] = /^(.*?)(?:\s*>\s*(\S+))?$/.exec(line.trim());
      if (/^exit\b/.test(command)) { this.ended(Number(command.split(' ')[1] ?? 0)); return; }
      const said = this.say(command);
      if (target) this.files.write(this.resolve(target), said);
      else this.emit(said.replaceAll('\n', '\r\n'));
    }
    this.prompt();
  }
  say(line) {
    const [command, ...words] = line.split(/\s+/);
    const names = words.filter((word) => !word.startsWith('-'));
    switch (command) {
      case '': return '';
      case 'pwd': return `${this.cwd}\n`;
      case 'echo': return `${words.join(' ').replace(/^'(.*)'$/, '$1')}\n`;
      case 'clear': return '\x1b[H\x1b[2J';
      case 'seq': return Array.from({ length: Math.min(Number(words[0]), 200_000) }, (_, at) => `${at + 1}\n`).join('');
      case 'cd': {
        const to = this.resolve(names[0] ?? '~');
        if (this.files.entries.get(to) !== null) return `bash: cd: ${names[0]}: No such file or directory\n`;
        this.cwd = to;
        return '';
      }
      case 'ls': {
        const all = words.includes('-a');
        const found = this.files.list(this.resolve(names[0] ?? '.')).filter((name) => all || !name.startsWith('.'));
        const coloured = found.map((name) => (this.files.entries.get(this.resolve(`${names[0] ?? '.'}/${name}`)) === null ? `\x1b[1;34m${name}\x1b[0m` : name));
        return [...(all ? ['.', '..'] : []), ...coloured].join('  ') + '\n';
      }
      case 'cat': {
        const text = this.files.entries.get(this.resolve(names[0] ?? ''));
        return typeof text === 'string' ? text : `cat: ${names[0]}: No such file or directory\n`;
      }
      default: return `bash: ${command}: command not found\n`;
    }
  }
}
