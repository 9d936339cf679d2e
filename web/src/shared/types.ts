// What the APIs answer, word for word. Nothing is decided here.

export type Role = 'learner' | 'instructor' | 'workspace';
export type StepStatus = 'pending' | 'active' | 'completed';
export type Phase =
  | 'Pending' | 'Provisioning' | 'Running' | 'Transitioning' | 'Suspended' | 'Failed' | 'Terminating';

/** `GET api/v1/state`. Times are RFC 3339. */
export interface WorkspaceState {
  instance: string;
  workshop: { id: string; name: string; version: string };
  step: string;
  stepTitle: string;
  position: number;
  total: number;
  finished: boolean;
  phase: string;
  startedAt: string | null;
  expiresAt: string | null;
  warning: boolean;
  serverTime: string;
  standalone: boolean;
  canExtend: boolean;
  role: Role;
  terminal: { enabled: boolean; server: string };
  editor: boolean;
  files: boolean;
  home: string;
}

export interface Step {
  id: string;
  title: string;
  position: number;
  status: StepStatus;
  skipped: boolean;
  hasChecks: boolean;
  canSkip: boolean;
  canEnter: boolean;
  reason: string | null;
}

export interface StepText extends Step {
  html: string;
  next: string | null;
  previous: string | null;
  digest: string;
}

export type Outcome = 'passed' | 'failed' | 'skipped' | 'error';

export interface CheckResult {
  id: string;
  resource: string;
  resourceId: string;
  property: string;
  title: string | null;
  outcome: Outcome;
  message: string;
  hint: string | null;
  expected?: unknown;
  found?: unknown;
  durationMs: number;
}

export interface Report {
  step: string;
  passed: boolean;
  startedAt: string;
  durationMs: number;
  counts: { total: number; passed: number; failed: number; skipped: number; errors: number };
  results: CheckResult[];
}

export interface Progress {
  completed: number;
  total: number;
}

export type Action = 'next' | 'previous' | 'goto' | 'skip' | 'reset';

export interface NavigateAnswer {
  /** None after the last step. */
  target: string | null;
  transition: boolean;
  message?: string;
}

export interface TransitionEvent {
  from: string | null;
  to: string | null;
  phase: string | null;
  message: string | null;
}

export interface Entry {
  name: string;
  kind: 'file' | 'directory' | 'symlink' | 'other';
  size: number;
  mode: number | string;
  modifiedAt: string | null;
  target?: string | null;
}

/** What the gateway and the control API say of an instance. */
export interface InstanceView {
  uid: string;
  namespace: string;
  name: string;
  /** How it is named in addresses: its name, in a cluster with its namespace. */
  reference: string;
  template: string;
  owner: string | null;
  step: string | null;
  steps: { id: string; title: string }[];
  phase: Phase | null;
  message: string | null;
  startedAt: string | null;
  expiresAt: string | null;
  warning: boolean;
  lastActivityAt: string | null;
  suspended: boolean;
  /** Why it fell asleep by itself; absent where somebody suspended it. */
  asleep?: 'Idle' | 'Expired' | null;
  hold: boolean;
  updateAvailable: boolean;
  progress: { completed: number; total: number } | null;
  url: string | null;
}

export interface TemplateView {
  id: string;
  name: string;
  steps: { id: string; title: string }[];
  ready: boolean;
  message: string | null;
  instances: number;
}
