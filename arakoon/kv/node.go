package kv

import (
	"context"
	"time"

	"openvstorage/arakoon"

	"github.com/google/uuid"
)

// Node is what the service needs of a member.
type Node interface {
	Get(ctx context.Context, c arakoon.Consistency, key []byte) ([]byte, error)
	MultiGet(ctx context.Context, c arakoon.Consistency, keys ...[]byte) ([][]byte, error)
	Range(ctx context.Context, c arakoon.Consistency, first, last []byte, limit int, fn func(key, value []byte) bool) error
	Reverse(ctx context.Context, c arakoon.Consistency, first, last []byte, limit int, fn func(key, value []byte) bool) error
	Watch(ctx context.Context, prefix []byte, from uint64, fn func(arakoon.Events) error) error
	Write(ctx context.Context, seq *arakoon.Sequence) (index uint64, results []arakoon.Result, err error)
	NewSession(ctx context.Context) (*arakoon.Session, error)
	ResumeSession(id uuid.UUID, request uint64) *arakoon.Session
	Leader() uint64
	Transfer(ctx context.Context, to uint64) error
	ChangeMembers(ctx context.Context, want arakoon.Members) error
	RaiseLevel(ctx context.Context, level uint32, known bool) error
	Level() uint32
	Knows() uint32
	RequireZones(ctx context.Context, zones int, asserted bool) (revision uint64, err error)
	Applied() uint64
	Visible() (uint64, error)
	AsOf() (asOf time.Time, known bool)
	Hash(ctx context.Context) (index uint64, sum [32]byte, err error)
	HashAt(ctx context.Context, index uint64) (sum [32]byte, err error)
	Status() arakoon.Status
	Stats() arakoon.Stats
}

var _ Node = (*arakoon.Node)(nil)

// Group is a member of a group in this process.
type Group struct {
	Node Node
	Life uint64 // of the group
}
