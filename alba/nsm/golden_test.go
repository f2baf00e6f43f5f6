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
