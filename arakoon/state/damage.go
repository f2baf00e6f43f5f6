package state

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// damaged makes an error of Pebble name the file that is damaged, if one is.
func damaged(err error) error {
	if info := pebble.ExtractDataCorruptionInfo(err); info != nil {
		return fmt.Errorf("%s is damaged: %w", info.Path, info.Details)
	}
	return err
}
