package metadata

import (
	"context"
	"errors"

	"github.com/google/uuid"
)

// Errors of Store.LoadPage, matched with errors.Is. Both say that this store does not have the
// page in a good state; another copy of it may be good.
var (
	ErrPageNotFound = errors.New("page not found")
	ErrPageCorrupt  = errors.New("page corrupt")
)

// EncodedPage is one page as AppendPage wrote it.
type EncodedPage struct {
	Number uint64
	Bytes  []byte
}

// Store keeps encoded pages by owner and number. It holds only what the
// backend's page objects and the TLogs can rebuild. All methods are safe for
// concurrent use.
type Store interface {
	// LoadPage returns the page's bytes, appended to buf[:0] if they fit. The error
	// matches ErrPageNotFound or ErrPageCorrupt if the store does not have the page in a
	// good state. Any other error is a failure of the store.
	LoadPage(ctx context.Context, owner uuid.UUID, number uint64, buf []byte) ([]byte, error)

	// SavePages stores pages, and replaces older ones of the same number. It keeps none
	// of the slices. A LoadPage that begins after it has returned sees the pages. They
	// are durable after the next Flush.
	SavePages(ctx context.Context, owner uuid.UUID, pages []EncodedPage) error

	// Flush returns when everything that was saved or deleted before is durable.
	Flush(ctx context.Context) error

	// DeletePages deletes the pages with numbers in [from, to). It is durable
	// no later than anything saved after it.
	DeletePages(ctx context.Context, owner uuid.UUID, from, to uint64) error

	// ListPages calls fn with the stored numbers in [from, to) in ascending
	// order until fn returns false.
	ListPages(ctx context.Context, owner uuid.UUID, from, to uint64, fn func(number uint64) bool) error
}
