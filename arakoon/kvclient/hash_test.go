package kvclient

import (
	"errors"
	"testing"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kv"
)

// TestHashOfAMember: a client gets the hash that the member itself has, and is told when it
// has none.
func TestHashOfAMember(t *testing.T) {
	node := openNode(t)
	client := newClient(t, Options{}, newHost(t, 3, node, kv.Options{}))
	if _, err := client.Set(t.Context(), b("k"), b("v")); err != nil {
		t.Fatal(err)
	}
	revision, want, err := node.Hash(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := client.HashAt(t.Context(), 3, revision); err != nil || got != want {
		t.Errorf("%x, %v; want %x", got, err, want)
	}
	if _, err := client.HashAt(t.Context(), 3, revision-1); !errors.Is(err, kv.ErrOther) {
		t.Errorf("a revision without a hash: %v", err)
	}
	if _, err := client.HashAt(t.Context(), 4, revision); err == nil || errors.Is(err, arakoon.ErrClosed) {
		t.Errorf("no such member: %v", err)
	}
}
