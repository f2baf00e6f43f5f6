package main

import (
	"github.com/spf13/cobra"

	"openvstorage/internal/control"
)

func (cmds vdiskCommands) rollback() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:               "rollback NAME SNAP",
		Short:             "bring a vDisk back to a snapshot; what was written since is gone",
		Args:              wants("NAME", "SNAP"),
		ValidArgsFunction: cmds.offers().names(true),
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, args []string) error {
			if err := forced(force, (*control.Client).Rollback, (*control.Client).ForceRollback)(client, c.Context(), args[0], args[1]); err != nil {
				return err
			}
			return cmds.done("rolled back", args[0])
		}),
	}
	c.Flags().BoolVar(&force, "force", false, "also while it is in use: what its users have in caches of their own is not what it holds then")
	return c
}
