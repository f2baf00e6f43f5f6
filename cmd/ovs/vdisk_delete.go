package main

import (
	"github.com/spf13/cobra"

	"openvstorage/internal/control"
)

func (cmds vdiskCommands) delete() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:               "delete NAME",
		Short:             "remove a vDisk with its snapshots and data",
		Args:              wants("NAME"),
		ValidArgsFunction: cmds.offers().names(false),
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, args []string) error {
			if err := forced(force, (*control.Client).Delete, (*control.Client).ForceDelete)(client, c.Context(), args[0]); err != nil {
				return err
			}
			return cmds.done("deleted", args[0])
		}),
	}
	c.Flags().BoolVar(&force, "force", false, "also while it is in use: its users get errors from then on")
	return c
}

// forced chooses between two methods.
func forced[Method any](force bool, usual, forced Method) Method {
	if force {
		return forced
	}
	return usual
}
