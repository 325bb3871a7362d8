// What the distribution's page keeps in inline scripts, which our content security policy forbids.
window.PUBLIC_URL = '/viewer/';
window.browserImportFunction = module => import(module);
