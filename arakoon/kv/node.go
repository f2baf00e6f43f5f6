package kv

import (
	"context"

	"openvstorage/arakoon"

	"github.com/google/uuid"
)

// Node is what the service needs of a member.
type Node interface {
	Get(ctx context.Context, c arakoon.Consistency, key []byte) ([]byte, error)
	MultiGet(ctx context.Context, c arakoon.Consistency, keys ...[]byte) ([][]byte, error)
	Range(ctx context.Context, c arakoon.Consistency, first, last []byte, limit int, fn func(key, value []byte) bool) error
	Reverse(ctx context.Context, c arakoon.Consistency, first, last []byte, limit int, fn func(key, value []byte) bool) error
	Write(ctx context.Context, seq *arakoon.Sequence) (index uint64, results []arakoon.Result, err error)
	NewSession(ctx context.Context) (*arakoon.Session, error)
	ResumeSession(id uuid.UUID, request uint64) *arakoon.Session
	Leading() bool
	Applied() uint64
	Err() error
	Stats() arakoon.Stats
}

var _ Node = (*arakoon.Node)(nil)

// Group is a member of a group in this process.
type Group struct {
	Node   Node
	Member uint64 // its number
	Life   uint64 // of the group
}

// leader is the member that leads as far as this one knows, 0 if it does not.
func (g *Group) leader() uint64 {
	if g.Node.Leading() {
		return g.Member
	}
	return 0
}
