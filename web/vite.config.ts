// How the pages are built: three of them, addressed relative to wherever they are served.
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const file = (name: string) => fileURLToPath(new URL(name, import.meta.url));

export default defineConfig({
  // The base path is known only when a page is served (`/`, `/w/alice/`).
  base: './',
  plugins: [svelte({ compilerOptions: { runes: true } })],
  build: {
    target: 'es2022',
    outDir: 'dist',
    emptyOutDir: true,
    // The polyfill would be an inline script, which the content security policy refuses.
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    // The licences of what is in the bundle go with it.
    license: { fileName: 'assets/licenses.md' },
    // light-dark() stays as it is written.
    cssTarget: ['chrome123', 'firefox121', 'safari17.5'],
    chunkSizeWarningLimit: 700,
    rolldownOptions: {
      input: { home: file('home.html'), workspace: file('workspace.html'), login: file('login.html') },
    },
  },
  test: { environment: 'jsdom', include: ['test/**/*.test.ts'] },
});
