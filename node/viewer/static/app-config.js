// The viewer's settings. Everything is asked of the node that served this page.
window.config = {
  name: 'stele',
  routerBasename: '/viewer',
  extensions: [],
  modes: [],
  customizationService: [
    // No guided tour over the first study that a browser profile opens.
    { 'ohif.tours': { $set: [] } },
  ],
  investigationalUseDialog: { option: 'never' },
  showStudyList: true,
  showErrorDetails: 'production',
  showWarningMessageForCrossOrigin: false, // pages of one origin: SharedArrayBuffer is not needed
  showCPUFallbackMessage: true,
  showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  groupEnabledModesFirst: true,
  maxNumberOfWebWorkers: 3,
  maxNumRequests: { interaction: 32, thumbnail: 5, prefetch: 12 }, // a node has 64 threads for all users
  defaultDataSourceName: 'stele',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'stele',
      configuration: {
        friendlyName: 'Stele',
        name: 'stele',
        qidoRoot: '/dicom-web',
        wadoRoot: '/dicom-web',
        wadoUriRoot: '/dicom-web',
        qidoSupportsIncludeField: true,
        supportsFuzzyMatching: true,
        supportsWildcard: true,
        imageRendering: 'wadors',
        thumbnailRendering: 'thumbnail',
        thumbnailRequestStrategy: 'fetch',
        enableStudyLazyLoad: true,
        // The standard lets a bulk data URI be relative; it then counts from the series (PS3.18 8.1.4).
        bulkDataURI: { enabled: true, relativeResolution: 'series' },
        omitQuotationForMultipartRequest: false,
      },
    },
  ],
  httpErrorHandler: error => {
    // The session ended: the node's own page asks for the name and comes back here.
    if (error.status === 401) {
      const here = window.location.pathname + window.location.search;
      window.location.assign('/login?next=' + encodeURIComponent(here));
    }
  },
};
