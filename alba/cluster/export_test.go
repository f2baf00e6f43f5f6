package cluster

// BusyWait is the first wait for a busy node.
const BusyWait = busyWait
