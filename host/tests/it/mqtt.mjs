// A client of MQTT: subscribes to a topic, prints what it gets, and publishes what it reads.
// Arguments: the server's URL, a topic. Lines of input: the quality of service and a body.
import { createInterface } from 'node:readline';
import mqtt from 'mqtt';

const [url, topic] = process.argv.slice(2);
const client = await mqtt.connectAsync(url, { protocolVersion: 4, clientId: 'device' });
client.on('message', (from, body) => console.log(`got ${body} on ${from}`));
await client.subscribeAsync(topic, { qos: 1 });
console.log('subscribed');
for await (const line of createInterface({ input: process.stdin })) {
  const [qos, body] = line.split(/ (.*)/);
  await client.publishAsync(topic, body, { qos: Number(qos) });
  console.log(`published ${body}`);
}
await client.endAsync();
