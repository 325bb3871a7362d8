// The viewer has no service worker yet. A browser that still has one from another deployment at this
// address asks for this file, and gets rid of it.
self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', event => event.waitUntil(self.registration.unregister()));
