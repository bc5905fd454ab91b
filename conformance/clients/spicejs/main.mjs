// Queries `spiced` through the Spice JavaScript SDK. One argument, JSON: {options, ask, sql, parameters}; `options` are
// passed to SpiceClient unchanged. Prints one line of JSON: {answer} or {error}.
import { createRequire } from 'node:module';

// The directory in which `npm ci` installed the packages; this file's directory has none.
const require = createRequire(process.env.SPICED_CLIENT_SPICEJS + '/package.json');
const { SpiceClient, Param } = require('@spiceai/spice');

const ASKS = {
  rows: async (client, { sql, parameters }) => (await client.sql(sql, parameters && { parameters })).toArray(),
  typed: async (client, { sql, parameters }) => {
    const typed = parameters.map(([type, value]) => Param[type](value));
    return (await client.sql(sql, { parameters: typed })).toArray();
  },
  chunks: async (client, { sql }) => {
    let rows = 0;
    await client.sql(sql, (table) => { rows += table.numRows; });
    return rows;
  },
  count: async (client, { sql }) => (await client.sql(sql)).numRows,
  json: (client, { sql }) => client.sqlJson(sql),
  healthy: (client) => client.isSpiceHealthy(),
  ready: (client) => client.isSpiceReady(),
};

const request = JSON.parse(process.argv[2]);
const plain = (_, value) => (typeof value === 'bigint' ? Number(value) : value);
try {
  const client = new SpiceClient({ logging: false, ...request.options });
  console.log(JSON.stringify({ answer: await ASKS[request.ask](client, request) }, plain));
  process.exit(0); // do not wait for open channels
} catch (error) {
  console.log(JSON.stringify({ error: String(error?.message ?? error), code: error?.code }));
  process.exit(1);
}
