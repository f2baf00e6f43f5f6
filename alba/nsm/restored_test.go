package nsm

import (
	"bytes"
	"testing"

	"openvstorage/alba/nsm/record"
)

// TestRestored: the open gc epochs of a restored namespace are above all that were opened, at
// the backup or since, and one is open; its versions go on behind those that were given.
func TestRestored(t *testing.T) {
	n := &Namespace{State: NamespaceActive, Created: 1, Epochs: Epochs{Minimum: 3, Next: 5}, NextVersion: 70, Objects: 2, Size: 8, Stored: 12}
	value, err := record.Encode(1, n)
	if err != nil {
		t.Fatal(err)
	}
	now, err := Restored(namespaceKey(6), value, 1<<32)
	if err != nil {
		t.Fatal(err)
	}
	var got Namespace
	if err := record.Decode(now, 1, &got); err != nil {
		t.Fatal(err)
	}
	want := *n
	want.Epochs, want.NextVersion = Epochs{Minimum: 5 + 1<<32, Next: 6 + 1<<32}, 70+1<<32
	if got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
	if same, err := Restored(objectKey(6, "o"), value, 1<<32); err != nil || !bytes.Equal(same, value) {
		t.Errorf("another key: %v", err)
	}
	n.Epochs.Next = 1 << 63
	if value, err = record.Encode(1, n); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ key, value []byte }{
		"cut": {namespaceKey(6), value[:9]}, "no epoch": {namespaceKey(6), value}, "key": {append(namespaceKey(6), 1), now},
	} {
		if _, err := Restored(c.key, c.value, 1<<32); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}

// TestRejoined: a manager that was made anew knows what messages had told it, takes the next
// one, and none again; and it has only the namespaces that it had.
func TestRejoined(t *testing.T) {
	set, err := Rejoined(7, []OSD{{Number: 3, State: OSDLinked, Node: "n"}, {Number: 4, State: OSDLost, Node: "m"}})
	if err != nil || len(set) != 3 {
		t.Fatalf("%v, %v", set, err)
	}
	var applied number
	if err := record.Decode(set[string(hostKey())], 1, &applied); err != nil || applied.v != 7 {
		t.Errorf("applied: %d, %v", applied.v, err)
	}
	var o osdRecord
	if err := record.Decode(set[string(osdKey(4))], 1, &o); err != nil || o.state != OSDLost || o.node != "m" {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range []OSD{{State: OSDLinked, Node: "n"}, {Number: 1, State: OSDLinked}, {Number: 1, Node: "n"}} {
		if _, err := Rejoined(7, []OSD{bad}); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	value, err := record.Encode(1, &Namespace{State: NamespaceRemoving, Epochs: Epochs{Minimum: 1, Next: 2}})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := NamespaceIn(namespaceKey(6), value); err != nil || n.Number != 6 || n.State != NamespaceRemoving {
		t.Errorf("%+v, %v", n, err)
	}
	if n, err := NamespaceIn(objectKey(6, "o"), value); err != nil || n != nil {
		t.Errorf("another key: %+v, %v", n, err)
	}
	for _, k := range [][]byte{namespaceKey(6)[:prefixSize+3], append(namespaceKey(6), 1)} {
		if _, err := NamespaceIn(k, value); err == nil {
			t.Errorf("key %q is taken", k)
		}
	}
}
