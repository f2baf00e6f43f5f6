// Package e2e is the whole system under real clients: the tests build ovs,
// start it as a process and drive it with nbdinfo, nbdcopy, nbdsh, qemu-img,
// qemu-io, fio and the stamping client, and kill it. Each test proves a
// sentence that the README or docs/ states to users. A test whose tools are
// not installed is skipped and says which are missing.
//
//	go test ./scripts/e2e                  everything
//	go test -short ./scripts/e2e           without what takes long
//	go test ./scripts/e2e -standin nbdkit  the client side alone, against a known server
//
// OVS_BIN names a built ovs to be tested instead. Some run with the clients of
// later releases of Debian too, from OVS_CLIENTS (scripts/fetch-clients).
package e2e
