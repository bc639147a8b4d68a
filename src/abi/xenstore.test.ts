// The layouts against the listing of public/io/xs_wire.h and docs/misc/xenstore-ring.txt.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as abi from './xenstore.ts';

test('xsd_sockmsg: four u32 in the order type, req_id, tx_id, len', () => {
  assert.equal(abi.xsdSockmsg.size, 16);
  assert.deepEqual(
    abi.xsdSockmsg.fields.map(({ name, offset, size }) => [name, offset, size]),
    [
      ['type', 0, 4],
      ['req_id', 4, 4],
      ['tx_id', 8, 4],
      ['len', 12, 4],
    ],
  );
});

test('xenstore_domain_interface: queues at 0 and 1024, indices from 2048, signals from 2064', () => {
  assert.deepEqual(
    abi.xenstoreDomainInterface.fields.map(({ name, offset, size }) => [name, offset, size]),
    [
      ['req', 0, 1024],
      ['rsp', 1024, 1024],
      ['req_cons', 2048, 4],
      ['req_prod', 2052, 4],
      ['rsp_cons', 2056, 4],
      ['rsp_prod', 2060, 4],
      ['server_features', 2064, 4],
      ['connection', 2068, 4],
      ['error', 2072, 4],
      ['evtchn_port', 2076, 4],
    ],
  );
});

test('message types are numbered as in enum xsd_sockmsg_type, 20 (RESTRICT) being gone', () => {
  const listed = [
    ...['CONTROL', 'DIRECTORY', 'READ', 'GET_PERMS', 'WATCH', 'UNWATCH', 'TRANSACTION_START'],
    ...['TRANSACTION_END', 'INTRODUCE', 'RELEASE', 'GET_DOMAIN_PATH', 'WRITE', 'MKDIR', 'RM', 'SET_PERMS'],
    ...['WATCH_EVENT', 'ERROR', 'IS_DOMAIN_INTRODUCED', 'RESUME', 'SET_TARGET', '', 'RESET_WATCHES'],
    ...['DIRECTORY_PART', 'GET_FEATURE', 'SET_FEATURE', 'GET_QUOTA', 'SET_QUOTA'],
  ];
  const numbers = new Map(Object.entries(abi).filter(([name]) => name.startsWith('XS_')));
  for (const [number, name] of listed.entries())
    if (name !== '') assert.equal(numbers.get(`XS_${name}`), number, name);
  assert.equal(abi.XS_INVALID, 0xffff);
});

test('limits, feature bits, connection and error values', () => {
  assert.deepEqual(
    [abi.XENSTORE_PAYLOAD_MAX, abi.XENSTORE_ABS_PATH_MAX, abi.XENSTORE_REL_PATH_MAX],
    [4096, 3072, 2048],
  );
  assert.deepEqual(
    [
      abi.XENSTORE_SERVER_FEATURE_RECONNECTION,
      abi.XENSTORE_SERVER_FEATURE_ERROR,
      abi.XENSTORE_SERVER_FEATURE_WATCHDEPTH,
      abi.XENSTORE_SERVER_FEATURE_DOMID_ANY,
    ],
    [1, 2, 4, 8],
  );
  assert.deepEqual([abi.XENSTORE_CONNECTED, abi.XENSTORE_RECONNECT], [0, 1]);
  assert.deepEqual(
    [abi.XENSTORE_ERROR_NONE, abi.XENSTORE_ERROR_COMM, abi.XENSTORE_ERROR_RINGIDX, abi.XENSTORE_ERROR_PROTO],
    [0, 1, 2, 3],
  );
  assert.equal(abi.XSD_ERRORS.length, 16);
});

test('xenbus states count from Unknown 0 to Reconfigured 8', () => {
  assert.deepEqual(
    [
      abi.XenbusStateUnknown,
      abi.XenbusStateInitialising,
      abi.XenbusStateInitWait,
      abi.XenbusStateInitialised,
      abi.XenbusStateConnected,
      abi.XenbusStateClosing,
      abi.XenbusStateClosed,
      abi.XenbusStateReconfiguring,
      abi.XenbusStateReconfigured,
    ],
    [0, 1, 2, 3, 4, 5, 6, 7, 8],
  );
});
