package abm

import (
	"bytes"
	"testing"

	"openvstorage/alba/nsm/record"
)

// TestRestored: numbers of OSDs and namespaces go on behind those that may have been given
// out since a backup; nothing else changes.
func TestRestored(t *testing.T) {
	b := &Backend{ID: [16]byte{1}, NextOSD: 5, NextNamespace: 9, NextHost: 2, Default: "p", OSDs: 4, Presets: 1, Hosts: 1}
	value, err := record.Encode(1, b)
	if err != nil {
		t.Fatal(err)
	}
	now, got, err := Restored(backendKey(), value, 1<<32)
	if err != nil || got == nil {
		t.Fatal(err)
	}
	want := *b
	want.NextOSD, want.NextNamespace = 5+1<<20, 9+1<<32
	read := new(Backend)
	if err := decode(backendKey(), now, read); err != nil || *read != want || *got != want {
		t.Errorf("%+v, %v", read, err)
	}
	if same, none, err := Restored(osdKey([16]byte{3}), value, 1<<32); err != nil || none != nil || !bytes.Equal(same, value) {
		t.Errorf("another key: %v, %v", none, err)
	}
	b.NextNamespace = 1 << 63
	if value, err = record.Encode(1, b); err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string][]byte{"cut": value[:20], "no number": value} {
		if _, _, err := Restored(backendKey(), v, 1<<32); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
	totals := WorkTotals{Last: 3, Fence: 4, Items: 2, Failed: 1}
	if value, err = record.Encode(1, &totals); err != nil {
		t.Fatal(err)
	}
	if now, _, err = Restored(workTotalsKey(), value, 1<<32); err != nil {
		t.Fatal(err)
	}
	var goesOn WorkTotals
	if err := decode(workTotalsKey(), now, &goesOn); err != nil || goesOn != (WorkTotals{Last: 3 + 1<<32, Fence: 4 + 1<<32, Items: 2, Failed: 1}) {
		t.Errorf("%+v, %v", goesOn, err)
	}
	o := OSD{LongID: [16]byte{3}, Number: 4, State: OSDActive, Node: "n", Endpoint: []byte("asd/0")}
	if value, err = record.Encode(record.Needs(&o), &o); err != nil {
		t.Fatal(err)
	}
	if got, err := OSDIn(osdKey(o.LongID), value); err != nil || got.Number != 4 || string(got.Endpoint) != "asd/0" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := OSDIn(backendKey(), value); err != nil || got != nil {
		t.Errorf("%+v, %v", got, err)
	}
}
