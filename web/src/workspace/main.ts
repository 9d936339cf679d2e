// The learner's page. A newer token in the address is exchanged first, so that it is gone from the bar.

import { mount } from 'svelte';
import '../shared/style.css';
import './article.css';
import { admit, takeFragment } from '../shared/entrance';
import Workspace from './Workspace.svelte';

const target = document.getElementById('app');
const secret = takeFragment();
if (secret) await admit(secret);
if (target) mount(Workspace, { target });
