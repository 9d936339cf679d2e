// Where things are on the learner's page: split, chosen tab, the phone's view; kept in this browser.

import { remember, remembered } from '../shared/theme.svelte';
import { parseJson } from '../shared/events';

export type Tool = 'terminal' | 'files' | 'editor' | 'notes';
export type PhoneView = 'tutorial' | 'terminal' | 'checks' | 'more' | 'tool';

const KEY = 'workshop.layout';
export const NARROWEST = 24;
export const WIDEST = 70;

interface Kept {
  split?: number;
  fontSize?: number;
  screenReader?: boolean;
}

export class Layout {
  /** Width of the tutorial in percent. */
  split = $state(42);
  tool = $state<Tool>('terminal');
  phone = $state<PhoneView>('tutorial');
  /** Whether the list of check results is unfolded. */
  results = $state(true);
  fontSize = $state(14);
  screenReader = $state(false);

  constructor() {
    const kept = parseJson<Kept>(remembered(KEY) ?? '') ?? {};
    if (typeof kept.split === 'number') this.move(kept.split);
    if (typeof kept.fontSize === 'number') this.fontSize = Math.min(24, Math.max(9, kept.fontSize));
    this.screenReader = kept.screenReader === true;
  }

  move(percent: number): void {
    this.split = Math.min(WIDEST, Math.max(NARROWEST, percent));
  }

  keep(): void {
    const { split, fontSize, screenReader } = this;
    remember(KEY, JSON.stringify({ split, fontSize, screenReader } satisfies Kept));
  }

  show(tool: Tool): void {
    this.tool = tool;
    this.phone = tool === 'terminal' ? 'terminal' : 'tool';
  }

  pick(view: PhoneView): void {
    this.phone = view;
    if (view === 'terminal') this.tool = 'terminal';
  }
}
