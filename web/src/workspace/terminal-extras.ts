// What the terminal can do beyond the screen itself; loaded after it is there.

export { WebLinksAddon } from '@xterm/addon-web-links';
export { Unicode11Addon } from '@xterm/addon-unicode11';
