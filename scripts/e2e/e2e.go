// Package e2e is the whole system under real clients. The tests build ovs, start it as
// a process, and drive it with nbdinfo, nbdcopy, nbdsh, qemu-img, qemu-io, fio and the
// stamping client; many kill it. Each test proves a sentence that the README or docs/
// states to users. A test whose tools are not installed is skipped, and says which are
// missing.
//
//	go test ./scripts/e2e                  everything
//	go test -short ./scripts/e2e           without what takes long
//	go test ./scripts/e2e -standin nbdkit  the client side alone, against a known server
//
// OVS_BIN names an ovs that is already built, to be tested instead. Some tests also run
// with the clients of later releases of Debian, from OVS_CLIENTS
// (scripts/fetch-clients).
package e2e
