"""How the console looks: django-unfold's settings for crun.settings. Plain values and dotted paths only."""

from typing import Any

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "CRUN console",
    "SITE_HEADER": "CRUN console",
    "SITE_SUBHEADER": "Operator",
    "SITE_URL": "/",
    "SITE_ICON": "apps.console.navigation.icon",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "apps.console.navigation.icon"}],
    "STYLES": ["apps.console.navigation.style_sheet"],
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_BACK_BUTTON": True,
    "BORDER_RADIUS": "8px",
    "COLORS": {
        "primary": {  # the portal's colour
            "50": "oklch(97.5% 0.012 200)",
            "100": "oklch(94.5% 0.025 200)",
            "200": "oklch(89.5% 0.045 200)",
            "300": "oklch(82% 0.075 200)",
            "400": "oklch(72% 0.095 200)",
            "500": "oklch(60% 0.1 200)",
            "600": "oklch(46% 0.085 200)",
            "700": "oklch(41% 0.075 200)",
            "800": "oklch(35% 0.062 200)",
            "900": "oklch(30% 0.05 200)",
            "950": "oklch(22% 0.036 200)",
        },
    },
    "SIDEBAR": {
        "show_search": True,
        "command_search": True,
        "show_all_applications": False,
        "navigation": "apps.console.navigation.groups",
    },
    "COMMAND": {
        "search_models": ["accounts.organization", "accounts.user", "catalog.provider", "catalog.model"],
    },
}
