// The login page: the only page for somebody without a valid cookie.

import { mount } from 'svelte';
import '../shared/style.css';
import Login from './Login.svelte';

const target = document.getElementById('app');
if (target) mount(Login, { target });
