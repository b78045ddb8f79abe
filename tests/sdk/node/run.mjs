// Runs what the SDKs for Node must be able to do, in one process: test_node.py copies this folder next to the installed
// SDKs and sets BASE_URL and API_KEY. Each check prints one line of JSON: {"script", "name", "error"}.

for (const script of process.argv.slice(2)) {
  const { checks } = await import(`./${script}`);
  for (const [name, check] of Object.entries(checks)) {
    let error = null;
    try {
      await check();
    } catch (failure) {
      error = failure.stack ?? String(failure);
    }
    console.log(JSON.stringify({ script, name, error }));
  }
}
