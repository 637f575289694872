r"""Tables of what is measured at single points: log-likelihoods and the local machine."""

from __future__ import annotations

import statistics
from typing import Any

from table_cells import cell, number, table


def log_likelihood(r: dict[str, Any]) -> str:
    mixture, network = r["mixture"], r["network"]
    rows = []
    for name, m in mixture["methods"].items():
        n = network["methods"][name]
        rows.append(
            [
                name,
                f"{m['calls']:,}",
                number(m["seconds"]),
                number(statistics.mean(m["stderr"])),
                number(m["rmse"]),
                f"{m['bias']:+.1f}",
                number(n["seconds"]),
                number(statistics.mean(n["stderr"])),
                f"{statistics.mean(n['values']):.2f}",
            ]
        )
    header = ["method", "calls a point", "seconds", "±", "true error", "bias"]
    header += ["network: seconds", "±", "mean, nats"]
    low, high = (number(s) for s in mixture["sigmas"])
    known = statistics.mean(mixture["known"])
    return (
        "<!-- log-likelihood -->\n"
        f"Left: a mixture of ten Gaussians in {mixture['ambient_dim']} coordinates, one for each "
        f"digit of MNIST, {len(mixture['known'])} held-out images, sigma from {low} to {high}; "
        f"known: {known:.1f} nats on average. ± is what a method says of itself, the true error is "
        "against the known density (root mean square over images), the bias its mean. Right: an "
        f"MLP of the 8 x 8 digits, {network['steps']:,} steps, where nothing is known.\n\n"
        + table(header, rows)
        + "\nA pullback counts as two calls. ± of the flow is over its starting points and signs, "
        "and contains nothing of its solver.\n<!-- end of log-likelihood -->\n"
    )


def local_machine(r: dict[str, Any]) -> str:
    speed, net = r["speed"], r["network"]
    rows = []
    for kind, part in speed.items():
        for name, row in part["competitors"].items():
            seconds = number(row["seconds"]["median"])
            rows.append([kind, f"{part['images']:,}", name, seconds, cell(row)])
    header = ["positions", "images", "one 28 x 28 image, 20 levels", "seconds", "ours = 1"]
    errors = ", ".join(f"{part['error']:.1e} ({kind})" for kind, part in speed.items())
    levels = [f"{s:.2g}" for s in net["sigmas_relative"]]
    r2 = [["error of the network, nats", *(number(e) for e in net["network_error"]), ""]]
    r2 += [[f"side, {name}", *(str(k) for k in sides), ""] for name, sides in net["sides"].items()]
    for what, title in (("denoised", "r²"), ("beyond_linear", "r² beyond linear")):
        for name, row in net["r_squared"].items():
            if row[what]:
                medians = [f"{statistics.median(each):.3f}" for each in row[what]]
                last = f"{statistics.median(row['samples']):.2f}" if what == "denoised" else ""
                r2.append([f"{title}, {name}", *medians, last])
    sizes = net["sizes"]
    return (
        "<!-- local machine -->\n"
        + table(header, rows)
        + f"\nLargest error of float32 images against float64: {errors}.\n\n"
        f"**At a tiny scale**: a network of six convolutions, {sizes['steps']:,} steps on "
        f"{sizes['training']} images of MNIST, beside machines of the same images; medians over "
        f"{sizes['points']} held-out images by level, and over {sizes['samples']} samples from the "
        "same noise. Published, with ResNets trained in full, of samples: "
        f"{net['published_median']}.\n\n"
        + table(["sigma / rms", *levels, "samples"], r2)
        + "<!-- end of local machine -->\n"
    )
