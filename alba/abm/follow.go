package abm

import (
	"context"
	"errors"
	"fmt"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
)

// Follow calls do with the NSM host that serves a namespace, and again whenever the namespace
// turns out to be on another host or on its way to one (nsm.ErrMoved, nsm.ErrMoving), until do
// returns something else. wait is called before each new try, and bounds them: it
// returns an error when no more is to be tried, as it must when ctx is done. What do did before an error of
// these two has changed nothing.
func (c *Client) Follow(ctx context.Context, number uint64, do func(host uint64) error, wait func(ctx context.Context) error) error {
	for {
		n, err := c.NamespaceByNumber(ctx, number, userfn.Consistent)
		if err != nil {
			return err
		}
		if err = do(n.Host); !errors.Is(err, nsm.ErrMoved) && !errors.Is(err, nsm.ErrMoving) {
			return err
		}
		if stopped := wait(ctx); stopped != nil {
			return fmt.Errorf("namespace %d, %v in generation %d: %w (%w)", number, n.State, n.Generation, err, stopped)
		}
	}
}
