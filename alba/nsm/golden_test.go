package nsm_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/nsmtest"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/internal/format/golden"
)

// What is stored is never to change: state-v1.txt holds every kind of key and
// value, one to a line.
func TestGolden(t *testing.T) {
	const file = "testdata/state-v1.txt"
	s, c := host(t)
	s.SetTime(0x1122334455667788)
	for i, o := range []*nsm.Object{object("a", 1, "one", 1, 2, 3), object("b", 2, "two", 4, 5, 0), object("c", 3, "three"), object("d", 4, "four", 4, 5, 0)} {
		if _, err := c.Put(ctx, 1, nsm.Create, 0, o); err != nil {
			t.Fatal(i, err)
		}
	}
	u := nsm.Update{Name: "b", ID: id(2), Epoch: 1, Manifest: []byte("repaired"), Changes: []nsm.Change{{Fragment: 0, To: nsm.Fragment{OSD: 7, Version: 1}}}}
	if _, err := c.Update(ctx, 1, u); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Delete(ctx, 1, []string{"a"}, nil); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	_ = s.View(func(tx userfn.Tx) error {
		tx.Range([]byte("nsm/"), nil, 1000, func(k, v []byte) bool {
			fmt.Fprintf(&got, "%c %s %s\n", k[4], hex.EncodeToString(k), hex.EncodeToString(v))
			return true
		})
		return nil
	})
	want := golden.CheckText(t, file, got.Bytes())

	// And what is in the file is read by this release.
	old := nsmtest.New(nsm.Functions()...)
	for line := range bytes.Lines(want) {
		fields := bytes.Fields(line)
		k, _ := hex.DecodeString(string(fields[1]))
		v, _ := hex.DecodeString(string(fields[2]))
		old.Edit(func(tx userfn.Tx) { tx.Set(k, v) })
	}
	check(t, old)
	o, err := nsm.NewClient(old, old).Get(ctx, 1, "b", userfn.Consistent)
	if err != nil || string(o.Manifest) != "repaired" || o.Chunks[0].Fragments[0] != (nsm.Fragment{OSD: 7, Version: 1}) {
		t.Fatal(o, err)
	}
}

// The keys and record versions of many hosts: state-v4.txt, after their level. Namespace 1 is
// being copied away, and 2 comes here.
func TestGoldenHosts(t *testing.T) {
	s, c := host(t)
	s.SetTime(0x1122334455667788)
	m := nsm.Moves{Client: c}
	if _, err := c.Deliver(ctx, 11, []nsm.Message{{Kind: nsm.MessageKnowOSD, OSD: 10, Node: "n"}, {Kind: nsm.MessageImportNamespace, Namespace: 2, Generation: 3, Host: 4}}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.BeginExport(ctx, 1, 2, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(ctx, 1, nsm.Create, 0, object("a", 1, "one", 1, 2, 3)); err != nil {
		t.Fatal(err)
	}
	o := object("b", 2, "two", 4, 5, 10)
	o.Version, o.ManifestSize = 7, uint32(len(o.Manifest))
	if _, err := m.ImportPage(ctx, 2, 3, nsm.Page{Last: "b", Complete: true, Objects: []nsm.Moved{{Name: "b", Object: o}}}); err != nil {
		t.Fatal(err)
	}
	check(t, s)
	var got bytes.Buffer
	_ = s.View(func(tx userfn.Tx) error {
		tx.Range([]byte("nsm/"), nil, 1000, func(k, v []byte) bool {
			fmt.Fprintf(&got, "%c %s %s\n", k[4], hex.EncodeToString(k), hex.EncodeToString(v))
			return true
		})
		return nil
	})
	old := nsmtest.New(nsm.Functions()...)
	for line := range bytes.Lines(golden.CheckText(t, "testdata/state-v4.txt", got.Bytes())) {
		fields := bytes.Fields(line)
		k, _ := hex.DecodeString(string(fields[1]))
		v, _ := hex.DecodeString(string(fields[2]))
		old.Edit(func(tx userfn.Tx) { tx.Set(k, v) })
	}
	check(t, old)
	back := nsm.Moves{Client: nsm.NewClient(old, old)}
	if ch, err := back.ExportChanges(ctx, 1, 2, 0); err != nil || ch.Last != 1 || len(ch.Objects) != 1 || ch.Objects[0].Name != "a" {
		t.Fatal(ch, err)
	}
	if n, err := back.Record(ctx, 2, userfn.Consistent); err != nil || n.State != nsm.NamespaceImporting || n.Cursor != "b" || !n.Complete || n.Peer != 4 {
		t.Fatal(n, err)
	}
}
