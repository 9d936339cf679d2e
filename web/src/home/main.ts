// The page at the gateway's root: the owner's workshops and instances.

import { mount } from 'svelte';
import '../shared/style.css';
import { admit, takeFragment } from '../shared/entrance';
import Home from './Home.svelte';

const target = document.getElementById('app');
const secret = takeFragment();
if (secret) await admit(secret);
if (target) mount(Home, { target });
