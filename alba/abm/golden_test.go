package abm_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"

	"openvstorage/alba/abm"
	"openvstorage/alba/nsm/nsmtest"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/internal/format/golden"
)

// What is stored is never to change: state-v1.txt holds every kind of key and
// value, one to a line.
func TestGolden(t *testing.T) {
	const file = "testdata/state-v1.txt"
	s, c := manager(t)
	s.SetTime(0x1122334455667788)
	health := abm.Health{Capacity: 1 << 40, Used: 5}
	for n := byte(1); n <= 3; n++ {
		if err := c.RegisterOSD(ctx, abm.OSD{LongID: [16]byte{n}, Node: "a", Endpoint: []byte{n, n}, Health: health}); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := c.ClaimOSD(ctx, [16]byte{1}); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if n, err := c.ReplaceOSD(ctx, 1, [16]byte{2}); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	if err := c.UpdateHealth(ctx, []abm.HealthUpdate{{LongID: [16]byte{2}, Health: abm.Health{LastRead: 1, LastWrite: 2, LastError: 3, Errors: 4, ChecksumErrors: 5}}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kept", "gone"} {
		if _, err := c.CreateNamespace(ctx, name, ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.DeleteNamespace(ctx, "gone"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.TakeLease(ctx, "maintenance", 0, "holder"); err != nil {
		t.Fatal(err)
	}
	if err := c.PutKeyCheck(ctx, abm.KeyCheck{Number: 7, Kind: abm.KeyCheckV1, Value: [32]byte{1, 2, 3}}); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	_ = s.View(func(tx userfn.Tx) error {
		tx.Range([]byte("abm/"), nil, 1000, func(k, v []byte) bool {
			fmt.Fprintf(&got, "%c %s %s\n", k[4], hex.EncodeToString(k), hex.EncodeToString(v))
			return true
		})
		return nil
	})
	want := golden.CheckText(t, file, got.Bytes())

	// And what is in the file is read by this release.
	old := nsmtest.New(abm.Functions()...)
	kinds := map[byte]bool{}
	for line := range bytes.Lines(want) {
		fields := bytes.Fields(line)
		kinds[fields[0][0]] = true
		k, _ := hex.DecodeString(string(fields[1]))
		v, _ := hex.DecodeString(string(fields[2]))
		old.Edit(func(tx userfn.Tx) { tx.Set(k, v) })
	}
	if len(kinds) != 11 {
		t.Errorf("%d kinds of key, there are 11", len(kinds))
	}
	check(t, old)
	o, err := abm.NewClient(old, old).OSD(ctx, [16]byte{2}, userfn.Consistent)
	if err != nil || o.Number != 2 || o.Replaces != 1 || o.ChecksumErrors != 5 || o.Capacity != 1<<40 {
		t.Fatal(o, err)
	}
}

// The keys and record versions of many hosts: state-v4.txt, after their level.
func TestGoldenHosts(t *testing.T) {
	s, c := manager(t)
	s.SetTime(0x1122334455667788)
	osds(t, c, 2)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.PutNode(ctx, abm.Node{ID: "a", Name: "name", Zone: "zone"}))
	must(c.DecommissionOSD(ctx, 2))
	must(nsmtest.ErrorOf(c.PutHost(ctx, "host2", nil, false)))
	must(nsmtest.ErrorOf(c.PutHost(ctx, "host3", nil, true)))
	must(c.SetHost(ctx, "host3", abm.HostLost))
	must(nsmtest.ErrorOf(c.CreateNamespace(ctx, "vdisk", "")))
	must(c.Carry(ctx, 1, host()))
	n, err := c.Namespace(ctx, "vdisk", userfn.Consistent)
	must(err)
	must(nsmtest.ErrorOf((abm.Moves{Client: c}).BeginMove(ctx, n, 2)))
	q := abm.Queue{Client: c}
	must(nsmtest.ErrorOf(q.AddWork(ctx, []abm.NewWork{{Name: "w", Data: []byte("data")}, {Name: "x"}, {Name: "y"}})))
	w, err := q.TakeWork(ctx, "holder")
	must(err)
	must(q.FailWork(ctx, w, "reason"))
	w, err = q.TakeWork(ctx, "holder")
	must(err)
	must(q.KeepWork(ctx, w))
	must(nsmtest.ErrorOf(q.Progress(ctx, abm.Job{Name: "j", Done: 1, Total: 2, Cursor: []byte{3}})))
	check(t, s)
	var got bytes.Buffer
	_ = s.View(func(tx userfn.Tx) error {
		tx.Range([]byte("abm/"), nil, 1000, func(k, v []byte) bool {
			fmt.Fprintf(&got, "%c %s %s\n", k[4], hex.EncodeToString(k), hex.EncodeToString(v))
			return true
		})
		return nil
	})
	old := nsmtest.New(abm.Functions()...)
	kinds := map[byte]bool{}
	for line := range bytes.Lines(golden.CheckText(t, "testdata/state-v4.txt", got.Bytes())) {
		fields := bytes.Fields(line)
		kinds[fields[0][0]] = true
		k, _ := hex.DecodeString(string(fields[1]))
		v, _ := hex.DecodeString(string(fields[2]))
		old.Edit(func(tx userfn.Tx) { tx.Set(k, v) })
	}
	for _, kind := range "VWQYTJ" {
		if !kinds[byte(kind)] {
			t.Errorf("no key of kind %c", kind)
		}
	}
	check(t, old)
	if n, err := abm.NewClient(old, old).NamespaceByNumber(ctx, 1, userfn.Consistent); err != nil || n.State != abm.NamespaceMoving || n.Generation != 1 || n.Other != 2 {
		t.Fatal(n, err)
	}
}
