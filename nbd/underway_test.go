package nbd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"syscall"
	"testing"

	"openvstorage/device"
	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// TestReadsUnderWay: one worker serves several READs whose data is on its way.
// What is read already is answered before the next one waits.
func TestReadsUnderWay(t *testing.T) {
	const reads, block, slow, bad = 20, 4096, 3, 12
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(i / block)
	}
	gate := nbdtest.NewGate()
	dev := nbdtest.Holding(data)
	dev.Hook = func(ctx context.Context, op nbdtest.Op, off, _ int64) error {
		switch {
		case op == nbdtest.OpTryRead:
			return device.ErrUnderWay
		case off == slow*block:
			return gate.Wait(ctx)
		case off == bad*block:
			return syscall.EIO
		}
		return nil
	}
	r := serve(t, dev, nbd.Limits{}).transmit(simple)
	var all []byte
	for i := range reads {
		all = nbd.AppendRequest(all, nbd.Request{Type: nbd.CmdRead, Cookie: uint64(i), Offset: uint64(i * block), Length: block})
	}
	r.send(all...)

	answered := map[uint64]bool{}
	answer := func() {
		t.Helper()
		head := r.read(nbd.SimpleReplyLen)
		errno, i := nbd.Errno(binary.BigEndian.Uint32(head[4:])), binary.BigEndian.Uint64(head[8:])
		if answered[i] {
			t.Fatalf("read %d is answered twice", i)
		}
		answered[i] = true
		if i == bad {
			if errno != nbd.EIO {
				t.Fatalf("bad block: %v", errno)
			}
			return
		}
		if p := r.read(block); errno != 0 || !bytes.Equal(p, data[i*block:][:block]) {
			t.Fatalf("read %d has other data, or error %v", i, errno)
		}
	}
	gate.Arrived(1)
	// The reads before the slow one, and the chains that do not have it.
	for range slow + reads - 8 {
		answer()
	}
	for i := range uint64(slow) {
		if !answered[i] {
			t.Errorf("read %d waits for read %d", i, slow)
		}
	}
	gate.Open()
	for range 8 - slow {
		answer()
	}
}

// TestReadsUnderWayCountAsTasks: reads of one round beyond the limits start
// before the reader waits for room.
func TestReadsUnderWayCountAsTasks(t *testing.T) {
	dev := nbdtest.NewMemory(testSize)
	dev.Hook = func(_ context.Context, op nbdtest.Op, _, _ int64) error {
		if op == nbdtest.OpTryRead {
			return device.ErrUnderWay
		}
		return nil
	}
	c := serve(t, dev, nbd.Limits{Requests: 3}).client(nbdclient.Options{InFlight: 64})
	wait := startAll(c, 64, func(int) *nbdclient.Request {
		return &nbdclient.Request{Type: nbd.CmdRead, Data: make([]byte, 4096)}
	})
	if err := wait(); err != nil {
		t.Fatal(err)
	}
}
