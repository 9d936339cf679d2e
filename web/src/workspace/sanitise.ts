// Cleans a step's HTML before it is put into the page. The server did so too, but the server here is a container
// whose learner may be root: what it sends must not script, style or imitate this page.

import DOMPurify, { type Config } from 'dompurify';

const CONFIG: Config = {
  USE_PROFILES: { html: true },
  ADD_TAGS: ['kbd'],
  FORBID_TAGS: [
    'style', 'form', 'button', 'select', 'option', 'optgroup', 'textarea', 'datalist', 'fieldset', 'legend', 'label',
    'output', 'meter', 'progress', 'dialog', 'template', 'slot', 'audio', 'video', 'source', 'track', 'map', 'area',
    'center', 'font', 'marquee', 'menu', 'nav', 'header', 'footer', 'main', 'aside',
  ],
  FORBID_ATTR: ['style', 'tabindex', 'accesskey', 'contenteditable', 'draggable', 'hidden', 'srcset', 'background',
    'popover', 'popovertarget', 'autofocus', 'is', 'role'],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  // Names become user-content-…, so that they cannot stand for properties of the document.
  SANITIZE_NAMED_PROPS: true,
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|#|[^a-z]|[a-z+.-]+(?:[^a-z+.\-:]|$))/i,
};

const CLASSES = /^(language-[\w+-]+|markdown-alert(-\w+)?|footnotes?|footnote-\w+|task-list-item|contains-task-list)$/;

/** `assets` is where the step's pictures are served; images from elsewhere are dropped. */
export function sanitise(html: string, assets: string): DocumentFragment {
  const purifier = DOMPurify(window);
  purifier.addHook('uponSanitizeAttribute', (_node, data) => {
    if (data.attrName !== 'class') return;
    data.attrValue = data.attrValue.split(/\s+/).filter((name) => CLASSES.test(name)).join(' ');
    data.keepAttr = data.attrValue !== '';
  });
  purifier.addHook('afterSanitizeAttributes', (node) => {
    if (node instanceof HTMLAnchorElement) rewriteLink(node);
    if (node instanceof HTMLImageElement) rewriteImage(node, assets);
    if (node instanceof HTMLInputElement) rewriteTask(node);
  });
  return purifier.sanitize(html, { ...CONFIG, RETURN_DOM_FRAGMENT: true });
}

function rewriteLink(link: HTMLAnchorElement): void {
  const href = link.getAttribute('href') ?? '';
  link.removeAttribute('target');
  if (href.startsWith('#')) return;
  if (/^(https?:)?\/\//i.test(href) || href.startsWith('mailto:')) {
    link.target = '_blank';
    link.rel = 'noopener noreferrer nofollow';
  } else {
    // Relative links would lead into this origin's own pages and API.
    link.removeAttribute('href');
  }
}

function rewriteImage(image: HTMLImageElement, assets: string): void {
  const address = new URL(image.getAttribute('src') ?? '', location.href);
  if (address.origin !== location.origin || !address.pathname.startsWith(assets)) {
    image.replaceWith(document.createTextNode(image.alt ? `[${image.alt}]` : ''));
    return;
  }
  image.loading = 'lazy';
  image.decoding = 'async';
}

function rewriteTask(input: HTMLInputElement): void {
  if (input.type === 'checkbox') input.disabled = true;
  else input.remove();
}
