// Colours code. Loaded when a text has code; knows only the languages that workshops use.

import hljs from 'highlight.js/lib/core';
import bash from 'highlight.js/lib/languages/bash';
import c from 'highlight.js/lib/languages/c';
import css from 'highlight.js/lib/languages/css';
import diff from 'highlight.js/lib/languages/diff';
import dockerfile from 'highlight.js/lib/languages/dockerfile';
import go from 'highlight.js/lib/languages/go';
import ini from 'highlight.js/lib/languages/ini';
import javascript from 'highlight.js/lib/languages/javascript';
import json from 'highlight.js/lib/languages/json';
import makefile from 'highlight.js/lib/languages/makefile';
import markdown from 'highlight.js/lib/languages/markdown';
import nginx from 'highlight.js/lib/languages/nginx';
import python from 'highlight.js/lib/languages/python';
import rust from 'highlight.js/lib/languages/rust';
import shell from 'highlight.js/lib/languages/shell';
import sql from 'highlight.js/lib/languages/sql';
import xml from 'highlight.js/lib/languages/xml';
import yaml from 'highlight.js/lib/languages/yaml';

const LANGUAGES = {
  bash, c, css, diff, dockerfile, go, ini, javascript, json, makefile, markdown, nginx, python, rust, shell, sql, xml,
  yaml,
};

for (const [name, language] of Object.entries(LANGUAGES)) hljs.registerLanguage(name, language);
hljs.registerAliases(['console', 'shellsession', 'shell-session'], { languageName: 'shell' });
hljs.registerAliases(['zsh'], { languageName: 'bash' });
hljs.registerAliases(['conf', 'toml'], { languageName: 'ini' });

const LONGEST = 50_000;

/** Colours the element's text where its language is known. */
export function highlight(code: HTMLElement, language: string): void {
  const text = code.textContent;
  if (text.length > LONGEST || !hljs.getLanguage(language)) return;
  // The result is escaped text and spans of highlight.js's own classes.
  code.innerHTML = hljs.highlight(text, { language, ignoreIllegals: true }).value;
}
