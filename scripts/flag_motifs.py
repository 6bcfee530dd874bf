"""What flags show, for captions in training: a country's name alone would teach no one to find its star."""

MOTIFS = {
    "a star": """
        algeria, aruba, azerbaijan, burkina faso, cameroon, central african republic, chile, congo -
        kinshasa, cuba, djibouti, ethiopia, ghana, guinea-bissau, israel, jordan, liberia, libya,
        malaysia, mauritania, morocco, mozambique, myanmar (burma), nauru, north korea, pakistan, panama,
        puerto rico, senegal, somalia, south sudan, suriname, timor-leste, togo, tunisia, türkiye,
        vietnam, zimbabwe
        """,
    "stars": """
        australia, bosnia & herzegovina, brazil, burundi, cape verde, china, comoros, cook islands,
        curaçao, dominica, european union, grenada, honduras, iraq, kosovo, micronesia, new zealand, papua
        new guinea, philippines, samoa, singapore, slovenia, solomon islands, st. kitts & nevis, syria,
        são tomé & príncipe, tajikistan, tokelau, turkmenistan, tuvalu, u.s. outlying islands, united
        states, uzbekistan, venezuela
        """,
    "a cross": """
        bouvet island, denmark, dominican republic, england, faroe islands, finland, georgia, greece,
        guernsey, iceland, jersey, malta, norway, sark, svalbard & jan mayen, sweden, switzerland, tonga,
        åland islands
        """,
    "a diagonal cross": "burundi, jamaica, scotland, united kingdom",
    "a crescent moon": """
        algeria, azerbaijan, comoros, libya, malaysia, maldives, mauritania, pakistan, singapore, tunisia,
        turkmenistan, türkiye, uzbekistan
        """,
    "a sun": """
        antigua & barbuda, argentina, kazakhstan, kiribati, kyrgyzstan, malawi, namibia, nepal, north
        macedonia, philippines, rwanda, taiwan, uruguay
        """,
    "a circle": "bangladesh, greenland, japan, laos, niger, palau",
    "the union jack in a corner": """
        anguilla, australia, bermuda, british indian ocean territory, british virgin islands, cayman
        islands, cook islands, falkland islands, fiji, montserrat, new zealand, niue, pitcairn islands,
        south georgia & south sandwich islands, turks & caicos islands, tuvalu
        """,
    "an eagle": "albania, egypt, mexico, moldova, montenegro, serbia, zambia",
    "a leaf": "canada",
    "a tree": "lebanon, norfolk island",
    "a dragon": "bhutan, wales",
    "a coat of arms": """
        andorra, bolivia, costa rica, croatia, ecuador, el salvador, guatemala, haiti, liechtenstein,
        paraguay, peru, portugal, san marino, slovakia, spain, vatican city
        """,
    "horizontal stripes": """
        armenia, austria, botswana, bulgaria, colombia, estonia, gabon, gambia, germany, hungary,
        indonesia, latvia, lithuania, luxembourg, mauritius, monaco, netherlands, poland, russia, sierra
        leone, thailand, ukraine, yemen
        """,
    "vertical stripes": """
        barbados, belgium, chad, france, guinea, ireland, italy, mali, mongolia, nigeria, romania
        """,
}


def flag_captions(country: str) -> list[str]:
    """Say what the flag of a country shows: none, one or several captions.

    >>> flag_captions("tunisia")
    ['flag with a star', 'flag with a crescent moon']
    """
    return [f"flag with {motif}" for motif, names in SHOWING.items() if country in names]


SHOWING = {motif: {" ".join(name.split()) for name in names.split(",")} for motif, names in MOTIFS.items()}
