// The text editor and its languages; loaded when a file is opened first.

import { defaultKeymap, history, historyKeymap, indentWithTab } from '@codemirror/commands';
import {
  HighlightStyle, StreamLanguage, bracketMatching, foldGutter, indentOnInput, syntaxHighlighting, type LanguageSupport,
} from '@codemirror/language';
import { highlightSelectionMatches, searchKeymap } from '@codemirror/search';
import { EditorState, type Extension } from '@codemirror/state';
import {
  EditorView, drawSelection, highlightActiveLine, highlightActiveLineGutter, highlightSpecialChars, keymap, lineNumbers,
} from '@codemirror/view';
import { tags } from '@lezer/highlight';

export { EditorState, EditorView };

const colours = HighlightStyle.define([
  { tag: [tags.comment, tags.meta], color: 'light-dark(#646c67, #96a29c)', fontStyle: 'italic' },
  { tag: [tags.keyword, tags.tagName, tags.heading], color: 'light-dark(#8a3382, #d9a4ea)' },
  { tag: [tags.string, tags.regexp, tags.inserted], color: 'light-dark(#1c6a3c, #97d5a0)' },
  { tag: [tags.number, tags.bool, tags.null, tags.atom, tags.variableName], color: 'light-dark(#9a4400, #efb27c)' },
  { tag: [tags.propertyName, tags.definition(tags.variableName), tags.typeName, tags.function(tags.variableName), tags.standard(tags.variableName), tags.attributeName], color: 'light-dark(#1d58a5, #92bdf5)' },
  { tag: [tags.link, tags.url], textDecoration: 'underline' },
  { tag: tags.strong, fontWeight: '700' },
  { tag: tags.emphasis, fontStyle: 'italic' },
  { tag: [tags.deleted, tags.invalid], color: 'var(--bad)' },
]);

const look = EditorView.theme({
  '&': { height: '100%', fontSize: '0.9rem', color: 'var(--text)', backgroundColor: 'var(--surface)' },
  '.cm-scroller': { fontFamily: 'var(--mono)', lineHeight: '1.6' },
  '.cm-content': { caretColor: 'var(--accent)', padding: '0.6rem 0' },
  '.cm-cursor': { borderLeftColor: 'var(--accent)', borderLeftWidth: '2px' },
  '.cm-gutters': { color: 'var(--soft)', backgroundColor: 'var(--surface)', border: '0' },
  '.cm-activeLine, .cm-activeLineGutter': { backgroundColor: 'color-mix(in srgb, var(--sunken) 60%, transparent)' },
  '&.cm-focused': { outline: 'none' },
  '&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground': { backgroundColor: 'light-dark(#cfe3f7, #2c4a63) !important' },
  '.cm-panels': { color: 'var(--text)', backgroundColor: 'var(--raised)' },
  '.cm-textfield': { backgroundColor: 'var(--surface)', borderColor: 'var(--line-strong)' },
  '.cm-button': { backgroundImage: 'none', backgroundColor: 'var(--raised)', borderColor: 'var(--line-strong)' },
});

const BY_NAME: [RegExp, () => Promise<Extension | LanguageSupport>][] = [
  [/\.(ya?ml)$/i, async () => (await import('@codemirror/lang-yaml')).yaml()],
  [/\.json$/i, async () => (await import('@codemirror/lang-json')).json()],
  [/\.py$/i, async () => (await import('@codemirror/lang-python')).python()],
  [/\.(md|markdown)$/i, async () => (await import('@codemirror/lang-markdown')).markdown()],
  [/(\.(sh|bash|zsh|profile)|^\.(bashrc|profile|bash_\w+))$/i, async () => StreamLanguage.define((await import('@codemirror/legacy-modes/mode/shell')).shell)],
  [/(^|\.)(Dockerfile|Containerfile)/i, async () => StreamLanguage.define((await import('@codemirror/legacy-modes/mode/dockerfile')).dockerFile)],
  [/\.(c|h|cc|cpp|hpp)$/i, async () => StreamLanguage.define((await import('@codemirror/legacy-modes/mode/clike')).c)],
  [/\.toml$/i, async () => StreamLanguage.define((await import('@codemirror/legacy-modes/mode/toml')).toml)],
  [/(\.(ini|conf|cfg|properties|service|env)$|^\.env)/i, async () => StreamLanguage.define((await import('@codemirror/legacy-modes/mode/properties')).properties)],
];

/** The language by the file's name, else by its first line; none for anything else or where it cannot be loaded. */
async function languageFor(name: string, text: string): Promise<Extension> {
  const byLine = /^#!.*\b(ba|z|da|a)?sh\b/.test(text) ? 'a.sh' : /^#!.*python/.test(text) ? 'a.py' : name;
  const load = BY_NAME.find(([pattern]) => pattern.test(name)) ?? BY_NAME.find(([pattern]) => pattern.test(byLine));
  try {
    return load ? await load[1]() : [];
  } catch {
    return [];
  }
}

/** A document's state; `changed` is told whether there is any change, `save` is for Ctrl+S. */
export async function createState(name: string, text: string, changed: () => void, save: () => void): Promise<EditorState> {
  return EditorState.create({
    doc: text,
    extensions: [
      lineNumbers(), foldGutter(), highlightSpecialChars(), history(), drawSelection(), indentOnInput(), bracketMatching(),
      highlightActiveLine(), highlightActiveLineGutter(), highlightSelectionMatches(), syntaxHighlighting(colours), look,
      EditorView.contentAttributes.of({ 'aria-label': `Text of ${name}` }),
      keymap.of([
        { key: 'Mod-s', preventDefault: true, run: () => { save(); return true; } },
        // Escape, then Tab leaves the editor by keyboard; Tab alone indents.
        indentWithTab, ...defaultKeymap, ...historyKeymap, ...searchKeymap,
      ]),
      EditorView.updateListener.of((update) => { if (update.docChanged) changed(); }),
      await languageFor(name, text),
    ],
  });
}
