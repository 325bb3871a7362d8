// What the distribution's page keeps in inline scripts, which our content security policy forbids.
console.time('scriptToView'); // the application ends this timer, and warns if nobody began it
window.PUBLIC_URL = '/viewer/';
window.browserImportFunction = module => import(module);
