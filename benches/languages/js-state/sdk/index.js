export * from '../../../../sdk-guest/js/index.js';
