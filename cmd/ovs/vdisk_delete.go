package main

import "github.com/spf13/cobra"

func (a *app) vdiskDelete() *cobra.Command {
	return &cobra.Command{
		Use:               "delete NAME",
		Short:             "remove a vDisk with its snapshots and data",
		Args:              wants("NAME"),
		ValidArgsFunction: a.completeNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			if err := client.Delete(c.Context(), args[0]); err != nil {
				return err
			}
			return a.done("deleted", args[0])
		},
	}
}
