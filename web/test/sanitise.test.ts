// A hostile container's text must not script, style or imitate the page.

import { describe, expect, it } from 'vitest';
import { sanitise } from '../src/workspace/sanitise';

function clean(html: string): string {
  const box = document.createElement('div');
  box.append(sanitise(html, '/w/alice/api/v1/assets/'));
  return box.innerHTML;
}

describe('cleaned text', () => {
  it('keeps what tutorials use', () => {
    for (const html of [
      '<h2 id="user-content-a">A</h2>', '<pre><code class="language-sh">ls</code></pre>', '<p>Press <kbd>Tab</kbd> <em>now</em></p>',
      '<details><summary>Hint</summary><p>x</p></details>', '<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>b</td></tr></tbody></table>',
      '<div class="markdown-alert markdown-alert-note"><p class="markdown-alert-title">Note</p></div>',
    ]) expect(clean(html).replaceAll(' open=""', '')).toContain(html.replace(/ class="markdown-alert-title"/, ' class="markdown-alert-title"'));
  });
  it('holds no scripts, handlers, frames, forms or styles', () => {
    const html = clean('<script>x</script><img src="x" onerror="x"><a href="javascript:x">l</a><iframe src="/"></iframe><form action="/session"><input name="key"><button>go</button></form><style>*{}</style><p style="position:fixed" onclick="x" class="page banner">t</p><svg onload="x"></svg><object data="x"></object><base href="//evil"><meta http-equiv="refresh" content="0;url=//evil"><link rel="stylesheet" href="//evil">');
    for (const part of ['script', 'onerror', 'javascript:', 'iframe', '<form', '<input', '<button', '<style', 'style=', 'onclick', 'class=', '<svg', '<object', '<base', '<meta', '<link']) {
      expect(html, part).not.toContain(part);
    }
  });
  it('shows only the workspace\'s own pictures', () => {
    expect(clean('<img src="/w/alice/api/v1/assets/a.png" alt="a">')).toContain('src="/w/alice/api/v1/assets/a.png"');
    for (const address of ['https://evil.example/a.png', '/w/bob/api/v1/assets/a.png', '/w/alice/api/v1/assets/../../../bob/x.png', 'data:image/png;base64,AAAA', '']) {
      expect(clean(`<p>b<img src="${address}" alt="pic"></p>`), address).toBe('<p>b[pic]</p>');
    }
  });
  it('lets links leave only for elsewhere, and not with this page in hand', () => {
    const link = clean('<a href="https://example.org/" target="_self">x</a>');
    for (const part of ['target="_blank"', 'noopener', 'noreferrer']) expect(link).toContain(part);
    expect(clean('<a href="#below">x</a>')).toBe('<a href="#below">x</a>');
    expect(clean('<a href="/control/v1/instances">x</a>')).toBe('<a>x</a>');
    expect(clean('<a href="\\\\evil.example">x</a>')).not.toMatch(/href="\\/);
  });
  it('cannot take the names of the document\'s properties', () => {
    expect(clean('<p id="cookie">x</p><a name="body">y</a>')).toBe('<p id="user-content-cookie">x</p><a name="user-content-body">y</a>');
  });
});
