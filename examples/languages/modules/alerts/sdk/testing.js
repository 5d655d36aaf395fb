export * from '../../../../../sdk-guest/js/testing.js';
