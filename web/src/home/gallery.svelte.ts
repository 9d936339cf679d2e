// Workshops and instances as the control API last said, kept so by its events.

import { ApiError, explain, get, login, post } from '../shared/api';
import { readEvents } from '../shared/events';
import type { InstanceView, TemplateView } from '../shared/types';

/** An answer is the list itself or an object with it. */
export function listOf<T>(body: unknown, name: string): T[] {
  const list = Array.isArray(body) ? body : body && typeof body === 'object' ? (body as Record<string, unknown>)[name] : null;
  return Array.isArray(list) ? (list as T[]) : [];
}

export class Gallery {
  workshops = $state.raw<TemplateView[]>([]);
  instances = $state.raw<InstanceView[]>([]);
  loaded = $state(false);
  connected = $state(false);
  problem = $state('');
  busy = $state<Record<string, string>>({});
  announcement = $state('');
  #stop = new AbortController();

  start(): void {
    void this.#follow();
  }

  close(): void {
    this.#stop.abort();
  }

  async load(): Promise<void> {
    const [workshops, instances] = await Promise.all([get('control/v1/workshops'), get('control/v1/instances')]);
    this.workshops = listOf(workshops, 'workshops');
    this.instances = listOf(instances, 'instances');
    this.loaded = true;
  }

  async #follow(): Promise<void> {
    const { signal } = this.#stop;
    let delay = 250;
    while (!signal.aborted) {
      try {
        await this.load();
        await readEvents('control/v1/events', signal, () => {
          this.connected = true;
          delay = 250;
          // Between the first answer and the stream something may have changed.
          this.#soon();
        }, () => this.#soon());
      } catch (cause) {
        if (cause instanceof ApiError && cause.status === 401) login();
      }
      this.connected = false;
      await new Promise((resolve) => setTimeout(resolve, delay * (0.75 + Math.random() / 2)));
      delay = Math.min(delay * 2, 5000);
    }
  }

  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Many events at once are one question. */
  #soon(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.load().catch(() => undefined);
    }, 100);
  }

  /** Starts an instance and gives where it is. */
  async create(template: TemplateView, step: string | null): Promise<string | null> {
    return this.#during(template.id, 'Starting', async () => {
      const body = await post<unknown>('control/v1/instances', step ? { template: template.id, step } : { template: template.id });
      const [instance] = listOf<InstanceView>(body, 'instances');
      return instance ? addressOf(instance) : null;
    });
  }

  async act(instance: InstanceView, action: 'suspend' | 'resume' | 'extend' | 'reset' | 'update'): Promise<void> {
    const words = { suspend: 'Suspending', resume: 'Starting', extend: 'Extending', reset: 'Resetting', update: 'Updating' };
    await this.#during(instance.reference, words[action], () => post(`control/v1/instances/${encodeURIComponent(instance.reference)}/${action}`, {}));
  }

  async remove(instance: InstanceView): Promise<void> {
    await this.#during(instance.reference, 'Deleting', () => post(`control/v1/instances/${encodeURIComponent(instance.reference)}`, undefined, 'DELETE'));
  }

  async #during<T>(key: string, word: string, work: () => Promise<T>): Promise<T | null> {
    this.busy[key] = word;
    this.problem = '';
    this.announcement = `${word} ${key}.`;
    try {
      return await work();
    } catch (cause) {
      this.problem = explain(cause);
      return null;
    } finally {
      delete this.busy[key];
      this.load().catch(() => undefined);
    }
  }
}

/** Relative to this page, and only below this origin. */
export function addressOf(instance: InstanceView): string {
  const own = `w/${encodeURIComponent(instance.reference)}/`;
  if (!instance.url) return own;
  try {
    const address = new URL(instance.url, location.href);
    return address.origin === location.origin ? address.pathname : own;
  } catch {
    return own;
  }
}
